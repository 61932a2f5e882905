"""What captions have cost so far, told in a process that has others ask: the account is in the store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vlmdata import progress
from vlmdata.captioning import line as lines
from vlmdata.captioning.journal.book import Account
from vlmdata.captioning.journal.records import NANO
from vlmdata.checkpoint import Dataset
from vlmdata.errors import StoreError
from vlmdata.event_loop import run
from vlmdata.layout import Step

_EVERY_S = 2.0

_log = logging.getLogger("vlmdata")


def spent_so_far(account: Account) -> str:
    """What is worth showing beside a bar; nothing before the first answer."""
    tokens = account.input_tokens + account.output_tokens
    money = f"${account.settled / NANO:,.4f}, " if account.settled else ""
    return f"{money}{tokens:,} tokens" if tokens else ""


@contextmanager
def spending_told(dataset: Dataset, every_s: float = _EVERY_S) -> Iterator[None]:
    """While the block runs, and once when it is over, say what the dataset's account has come to.

    Args:
        dataset: Whose account.
        every_s: Seconds from one look at it to the next.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every_s):
            _tell(dataset)
        _tell(dataset)

    watching = threading.Thread(target=watch, name="watch-spending", daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def _tell(dataset: Dataset) -> None:
    try:
        progress.note(Step.CAPTIONED, spent_so_far(run(_account(dataset))))
    except StoreError as error:
        # Whoever asks has the same store, and says so; a look at it stops nobody.
        _log.debug("the account cannot be read: %s", error)


async def _account(dataset: Dataset) -> Account:
    journal = await lines.process().journal(dataset)
    await journal.find(())
    return journal.account
