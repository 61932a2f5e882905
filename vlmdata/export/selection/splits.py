"""Who goes into which split: groups as a whole, strata by their share, and nobody ever changes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vlmdata.export.selection.kin import NEW, Flags, Kin, Positions, Splits

CONFLICT = -2
"""The split of a newcomer that would join two."""
_PARTS = 10
"""A group larger than one part in so many of what the smallest split is to hold goes where most go."""


def assign(kin: Kin, strata: Positions, draws: npt.NDArray[np.float64], shares: Mapping[str, float]) -> Splits:
    """The split of everybody, int8 (n,): a position among the shares, or `CONFLICT`.

    Who has a split keeps it. A group that touches one split joins it; one that
    touches two is held as a whole. All others are drawn: the largest share is
    where everybody goes who is not drawn for another, each stratum gives its
    share as nearly as whole groups can, and a group that alone would fill a
    good part of the smallest split is not drawn.

    Args:
        kin: Their relations, and the splits that they have.
        strata: int64 (n,), what is to be spread evenly.
        draws: float64 (n,) in [0, 1), each one's own luck, which must not follow from where it lies.
        shares: What each split is to have; they add up to 1.
    """
    split = kin.split.copy()
    new = split == NEW
    group = kin.groups()
    touched = np.zeros((int(group.max(initial=-1)) + 1, len(shares)), np.bool_)
    np.logical_or.at(touched, group[new], kin.touches[new])
    count = touched.sum(axis=1)
    split[new] = np.where(count == 1, touched.argmax(axis=1), np.where(count > 1, CONFLICT, NEW))[group[new]]
    undecided = split == NEW
    split[undecided] = _drawn(split, group, undecided, strata, draws, np.array(list(shares.values())))
    return split


def _drawn(
    split: Splits,
    group: Positions,
    undecided: Flags,
    strata: Positions,
    draws: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64],
) -> Splits:
    """The split of those who are undecided: their groups are wholly so."""
    rows = np.flatnonzero(undecided)
    # The member that draws lowest stands for its group.
    rows = rows[np.lexsort((draws[rows], group[rows]))]
    names, first, sizes = np.unique(group[rows], return_index=True, return_counts=True)
    stand = rows[first]
    main = int(shares.argmax())
    others = [at for at in np.argsort(-shares, kind="stable") if at != main and shares[at] > 0]
    chosen = np.full(len(names), main, np.int8)
    there = np.bincount(split[split >= 0], minlength=len(shares))
    want = np.maximum(0, shares * (there.sum() + len(rows)) - there)
    small = np.flatnonzero(sizes <= max(1.0, float(want[others].min(initial=np.inf)) / _PARTS))
    left = small[np.lexsort((draws[stand[small]], strata[stand[small]]))]
    among = float(sizes[left].sum())
    for at in others:
        taken = _every(len(left), min(1.0, want[at] / among) if among else 0.0)
        chosen[left[taken]] = at
        left = left[~taken]
        among = float(sizes[left].sum())
    result: Splits = chosen[np.searchsorted(names, group[undecided])]
    return result


def _every(count: int, rate: float) -> Flags:
    """Flags (count,) of which this share is set, spread evenly."""
    steps = np.floor(np.arange(count + 1) * rate + 0.5)
    flags: Flags = steps[1:] > steps[:-1]
    return flags
