"""What is written down: a request before it is sent, how it ended, and that somebody wants another attempt.

Money is counted in whole nanodollars, so that sums are exact.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vlmdata.captioning.provider import Failure
from vlmdata.errors import StoreError

NANO = 1_000_000_000
"""Nanodollars in a dollar."""


@dataclass(frozen=True)
class Ask:
    """A request is about to be sent: the `request`-th of an attempt at `key`.

    `until` is the moment (Unix seconds) at which its answer cannot be waited
    for any more; `reserved` is the most that it can cost, nanodollars.
    """

    key: str
    attempt: int
    request: int
    until: float
    reserved: int
    writer: str
    batch: str | None = None


@dataclass(frozen=True)
class End:
    """How a request ended: with a text, or with a failure that `final` closes the attempt.

    `cost` is null if nobody said what was used: what was reserved stays spent.
    An `unsent` request never left this machine, and does not count; its number
    is given out again, so `batch` says under which token it was claimed. `sent` is
    the picture's width, height and size in bytes, and the estimate of input tokens.
    Before `not_before` (Unix seconds) the server does not want to be asked again.
    """

    key: str
    attempt: int
    request: int
    text: str | None
    failure: Failure | None
    final: bool
    status: int | None
    message: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost: int | None
    seconds: float
    at: float
    sent: tuple[int, ...] | None = None
    unsent: bool = False
    batch: str | None = None
    not_before: float | None = None


@dataclass(frozen=True)
class Open:
    """A person, or a caption that did not fit, wants another attempt at `key`."""

    key: str
    attempt: int


Record = Ask | End | Open
_KINDS: dict[str, type[Ask] | type[End] | type[Open]] = {"ask": Ask, "end": End, "open": Open}
_FLAGS = frozenset({"final", "unsent"})
_ALWAYS = frozenset({"key", "attempt", "request", "until", "reserved", "writer", "seconds", "at"})
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode(records: Sequence[Record]) -> bytes:
    """A segment of the log: a JSON object a line."""
    lines = (json.dumps({"": _NAMES[type(one)], **_said(one)}, ensure_ascii=False) for one in records)
    return "".join(f"{line}\n" for line in lines).encode()


def decode(data: bytes, where: str) -> list[Record]:
    """The records of a segment.

    Raises:
        StoreError: it is not one; the journal is never guessed at, for it is money.
    """
    try:
        return [_record(json.loads(line)) for line in data.splitlines()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"{where}: is damaged ({error}); restore it from a backup of the store") from error


def _said(record: Record) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if value is not None and value is not False}


def _record(row: dict[str, Any]) -> Record:
    kind = _KINDS[row.pop("")]
    left_out = kind.__dataclass_fields__.keys() - row.keys() - _ALWAYS
    absent: dict[str, Any] = {name: False if name in _FLAGS else None for name in left_out}
    return kind(**row, **absent)
