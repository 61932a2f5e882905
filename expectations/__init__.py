"""The health rules of each stage and of the whole run, as code: one file a stage.

A stage's file says which columns it looks at, and makes rules of them: figures
(how many samples break it, and which), with what is asked of each. `suite` has
Great Expectations judge the figures, `gate` stops a run or warns, and `docs`
shows every verdict on one page.
"""
