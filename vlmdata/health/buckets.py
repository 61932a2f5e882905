"""The fixed buckets that sizes, shapes, lengths and scores are counted in, so that two runs can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int8]
Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Buckets:
    """Half-open buckets of whole numbers: below the first border, from each border up to the next, from the last on."""

    borders: tuple[int, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each bucket, one more than there are borders."""
        first, last = self.borders[0], self.borders[-1]
        between = pairwise(self.borders)
        return (_span(0, first) if first == 1 else f"<{first}", *(_span(*pair) for pair in between), f">={last}")

    def of(self, values: Integers) -> Positions:
        """The bucket of each value (n), by its position among the labels."""
        return np.searchsorted(np.asarray(self.borders), values, side="right").astype(np.int8)


def _span(low: int, end: int) -> str:
    return f"{low}-{end - 1}" if end - low > 1 else f"{low}"


SIDES = Buckets((224, 256, 384, 512, 768, 1024))
"""Shorter side of a picture, px, upright."""

LENGTHS = Buckets(tuple(2**power for power in range(11)))
"""Length of a caption, in whatever unit."""

_RATIOS = ((5, 4), (3, 2), (2, 1), (3, 1))
"""Longer side to shorter side, where a bucket begins."""


def _shapes() -> tuple[str, ...]:
    named = [f"{long}:{short}" for long, short in _RATIOS]
    spans = [*(f"{low}-{high}" for low, high in pairwise(named)), f">={named[-1]}"]
    return (*(f"tall {span}" for span in reversed(spans)), f"square <{named[0]}", *(f"wide {span}" for span in spans))


SHAPES = _shapes()
"""Aspect ratios, from the tallest to the widest; a picture and the same turned by 90 degrees mirror each other."""


def shape(width: Integers, height: Integers) -> Positions:
    """The bucket of each picture's aspect ratio (n), by its position in `SHAPES`; compared in whole numbers."""
    long = np.maximum(width, height).astype(np.int64)
    short = np.minimum(width, height).astype(np.int64)
    steps = np.sum([long * parts >= short * whole for whole, parts in _RATIOS], axis=0)
    places: Positions = np.where(width < height, len(_RATIOS) - steps, len(_RATIOS) + steps).astype(np.int8)
    return places


_FIRST, _STEP, _BINS = -1.0, 0.02, 100
SCORE_BORDERS: npt.NDArray[np.float32] = np.round(_FIRST + _STEP * np.arange(_BINS + 1), 2).astype(np.float32)
"""Borders of the score histogram, from -1 to 1 in steps of 0.02; float32, as scores are when they are judged."""


def score_bin(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The bin of each finite score (n): from its lower border to below its upper; 1 is in the last."""
    bins = np.searchsorted(SCORE_BORDERS, scores.astype(np.float32), side="right") - 1
    # The cosine of equal vectors may pass 1 by its last bits.
    return np.clip(bins, 0, _BINS - 1)


def bin_low(position: int) -> float:
    """The lower border of a bin, or of one that would lie beyond the ends."""
    return round(_FIRST + _STEP * position, 2)


def bin_at(low: float) -> int:
    """The bin that has this lower border."""
    return round((low - _FIRST) / _STEP)
