"""How far a run is, for whoever draws a bar in this process; costs nothing if nobody listens.

A step is a `layout.Step` of a build, or the name of what else goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Listener:
    """What can be heard; override what is of interest. Called from any thread."""

    def begin(self, step: str, total: int) -> None:
        """A step starts over `total` samples."""

    def advance(self, step: str, samples: int) -> None:
        """`samples` more are through, of a shard that is not done yet."""

    def done(self, step: str, samples: int) -> None:
        """A shard of `samples` is done, perhaps from its checkpoint."""

    def note(self, step: str, text: str) -> None:
        """Something worth showing beside the step, such as what it has cost so far."""

    def end(self, step: str) -> None:
        """No shard of the step is left."""


_listeners: list[Listener] = []


def heard() -> bool:
    """Whether anybody listens: what takes a while to find out need not be found out for nobody."""
    return bool(_listeners)


def begin(step: str, total: int) -> None:
    """Say that a step starts over `total` samples."""
    for listener in _listeners:
        listener.begin(step, total)


def advance(step: str, samples: int) -> None:
    """Say that `samples` more have been through `step`."""
    for listener in _listeners:
        listener.advance(step, samples)


def done(step: str, samples: int) -> None:
    """Say that a shard of `samples` is done."""
    for listener in _listeners:
        listener.done(step, samples)


def note(step: str, text: str) -> None:
    """Say what is worth showing beside a step."""
    for listener in _listeners:
        listener.note(step, text)


def end(step: str) -> None:
    """Say that a step is over."""
    for listener in _listeners:
        listener.end(step)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let a listener hear this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
