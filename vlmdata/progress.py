"""Samples done, as they are done, for whoever draws a bar in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vlmdata.layout import Step

Listener = Callable[[Step, int], None]

_listeners: list[Listener] = []


def advance(step: Step, samples: int) -> None:
    """Say that `samples` more have been through `step`; costs nothing if nobody listens."""
    for listener in _listeners:
        listener(step, samples)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear every `advance` of this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
