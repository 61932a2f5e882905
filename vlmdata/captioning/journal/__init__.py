"""The captioner's journal: what was asked, what it cost and what came back, durable before it counts.

records.py   the three things that can be written down
book.py      what they add up to: answers, open requests, money
log.py       their one order, in the object store, over all runs and machines
journal.py   many writers in one process: group commits
"""
