"""How well a score tells matched pairs from shuffled ones: ROC curve, area under it, thresholds by what they keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DECIMALS = 4
"""Of thresholds and shares that are told or written."""
MOST_POINTS = 200
Scores = NDArray[np.float32]


class RocPoint(NamedTuple):
    """Shares of the matched and of the shuffled pairs that score at least `threshold`."""

    threshold: float
    matched: float
    shuffled: float


@dataclass(frozen=True)
class Kept:
    """The threshold that keeps a share of the matched pairs.

    Attributes:
        keep: the share that was asked for.
        threshold: what scores less is not kept; cosine, compared in float32.
        matched, shuffled: shares of the pairs that score at least the threshold.
    """

    keep: float
    threshold: float
    matched: float
    shuffled: float


def auc(matched: Scores, shuffled: Scores) -> float:
    """Area under the ROC curve: the share of (matched, shuffled) couples in the right order, ties as half."""
    ordered = np.sort(shuffled)
    below = np.searchsorted(ordered, matched, "left") + np.searchsorted(ordered, matched, "right")
    return float(below.mean() / 2 / len(shuffled))


def roc(matched: Scores, shuffled: Scores, most: int = MOST_POINTS) -> tuple[RocPoint, ...]:
    """Points of the curve from the highest score down to (1, 1); it begins at (0, 0), which no score stands for.

    Of more than `most` points those are taken that lie evenly along the curve.
    """
    thresholds = np.unique(np.concatenate([matched, shuffled]).astype(np.float32))[::-1]
    right, wrong = _share_from(matched, thresholds), _share_from(shuffled, thresholds)
    way = right + wrong
    points = np.unique(np.searchsorted(way, np.linspace(way[0], way[-1], most)))
    return tuple(
        # The shortest decimal that is this float32 again.
        RocPoint(float(str(thresholds[i])), round(float(right[i]), DECIMALS), round(float(wrong[i]), DECIMALS))
        for i in points
    )


def kept(matched: Scores, shuffled: Scores, keep: float) -> Kept:
    """The highest threshold, of `DECIMALS` decimals, that keeps at least `keep` of the matched pairs."""
    threshold = rounded(float(np.quantile(matched, 1 - keep, method="lower")), math.floor)
    return Kept(keep, threshold, share(matched >= np.float32(threshold)), share(shuffled >= np.float32(threshold)))


def rounded(value: float, direction: Callable[[float], int]) -> float:
    """A threshold to `DECIMALS` decimals, up or down: what it promised, it still keeps."""
    scale = 10**DECIMALS
    return float(direction(value * scale) / scale)


def share(of: NDArray[np.bool_]) -> float:
    """How many are true, 0 to 1, to `DECIMALS` decimals."""
    return round(float(of.mean()), DECIMALS)


def _share_from(scores: Scores, thresholds: Scores) -> NDArray[Any]:
    """Share of the scores that are at least each threshold."""
    below = np.searchsorted(np.sort(scores), thresholds, "left")
    found: NDArray[Any] = 1 - below / len(scores)
    return found
