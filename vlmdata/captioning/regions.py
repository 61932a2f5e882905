"""Answers of one region a line: `<phrase>: [x1, y1, x2, y2]`, in thousandths of the picture's width and height."""

from __future__ import annotations

import re
from dataclasses import dataclass

SCALE = 1_000
"""Where the right and the lower edge of the picture are."""

_COMMA = r"\s*[,，、]\s*"
_NUMBER = r"([0-9]{1,4})"
_LINE = re.compile(rf"(.*\S)\s*[:：]\s*\[\s*{_COMMA.join([_NUMBER] * 4)}\s*\][.,;。；]?")


class MalformedRegion(ValueError):
    """A line that is no region; says which and why."""


@dataclass(frozen=True)
class Region:
    """A phrase and its box: left, top, right and lower edge, whole numbers from 0 to 1000."""

    phrase: str
    box: tuple[int, int, int, int]

    def __str__(self) -> str:
        return f"{self.phrase}: {list(self.box)}"


def parse_regions(text: str) -> list[Region]:
    """One region a line.

    Raises:
        MalformedRegion: a line has another form, or its box is not one.
    """
    return [_region(number, line) for number, line in enumerate(text.splitlines(), 1)]


def _region(number: int, line: str) -> Region:
    match = _LINE.fullmatch(line)
    if not match:
        raise MalformedRegion(f"line {number} is not 'phrase: [x1, y1, x2, y2]'")
    left, top, right, bottom = (int(group) for group in match.groups()[1:])
    if max(left, top, right, bottom) > SCALE:
        raise MalformedRegion(f"line {number} has a coordinate outside 0 to {SCALE}")
    if left >= right or top >= bottom:
        raise MalformedRegion(f"line {number} has a box without area; expected x1 < x2 and y1 < y2")
    return Region(match[1], (left, top, right, bottom))
