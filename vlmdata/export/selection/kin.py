"""Who belongs together: what two pictures share that no two splits may.

Relations are folded as they are found, so that memory is linear in the
pictures however many relations there are: newcomers are joined to groups, and
of those who have a split already a newcomer only learns which splits it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.filtering.near_duplicates import pairs_within

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
Splits = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]
Vectors = npt.NDArray[np.float32]
Edges = tuple[Positions, Positions]
"""Positions of the two that are related, (m,) each."""

NEW = -1
"""The split of one that has none yet."""
_MOST_PAIRS = 5_000_000
_NEWCOMERS_AT_ONCE = 32_768
_ROUNDING = 1e-3
"""By how much a cosine may be off, whatever device computes it."""


class Kin:
    """Groups of newcomers, and which splits each of them touches.

    Args:
        split: int8 (n,), of each picture the split that it has, or `NEW`.
        count: how many splits there are.
    """

    at_once = 5_000_000
    """Relations that are kept before they are folded."""

    def __init__(self, split: Splits, count: int) -> None:
        self.split = split
        self.touches = np.zeros((len(split), count), np.bool_)
        self._group = np.arange(len(split))
        self._waiting: list[Edges] = []

    def relate(self, one: Positions, other: Positions) -> None:
        """These are related, pair by pair."""
        for this, that in ((one, other), (other, one)):
            # Whoever is in no split for good, such as a picture of an evaluation set, binds nobody.
            known = (self.split[this] == NEW) & (self.split[that] >= 0)
            self.touches[this[known], self.split[that[known]]] = True
        new = (self.split[one] == NEW) & (self.split[other] == NEW)
        if new.any():
            self._waiting.append((one[new], other[new]))
        if sum(len(waiting) for waiting, _ in self._waiting) > self.at_once:
            self._fold()

    def groups(self) -> Positions:
        """int64 (n,): one number, from 0 on, for all that belong together, directly or by others."""
        self._fold()
        return np.unique(self._group, return_inverse=True)[1].astype(np.int64)

    def _fold(self) -> None:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not self._waiting:
            return
        count = len(self.split)
        one = np.concatenate([np.arange(count), *(one for one, _ in self._waiting)])
        other = np.concatenate([self._group, *(other for _, other in self._waiting)])
        graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
        self._group = connected_components(graph, directed=False)[1].astype(np.int64)
        # A group is named by one of its own, so that the next fold is a star around it.
        first = np.full(self._group.max(initial=-1) + 1, count)
        np.minimum.at(first, self._group, np.arange(count))
        self._group = first[self._group]
        self._waiting = []


def by_hash(hashes: Hashes, radius: int, newcomer: Flags) -> Iterator[Edges]:
    """Pairs of which one is a newcomer, and whose hashes (n) lie within `radius` bits."""
    new, old = np.flatnonzero(newcomer), np.flatnonzero(~newcomer)
    yield from _within(hashes, new, radius)
    yield from _between(hashes, new, old, radius)


def _within(hashes: Hashes, rows: Positions, radius: int) -> Iterator[Edges]:
    try:
        one, other, _ = pairs_within(hashes[rows], radius, limit=_MOST_PAIRS)
    except ValueError:
        # Too many to be listed at once: half of them at a time.
        first, second = np.array_split(rows, 2)
        for part in (first, second):
            yield from _within(hashes, part, radius)
        yield from _between(hashes, first, second, radius)
        return
    yield rows[one], rows[other]


def _between(hashes: Hashes, rows: Positions, others: Positions, radius: int) -> Iterator[Edges]:
    try:
        one, other, _ = pairs_within(hashes[rows], radius, against=hashes[others], limit=_MOST_PAIRS)
    except ValueError:
        longer, shorter = (rows, others) if len(rows) >= len(others) else (others, rows)
        for part in np.array_split(longer, 2):
            yield from _between(hashes, part, shorter, radius)
        return
    yield rows[one], others[other]


def by_caption(owners: Positions, texts: pa.ChunkedArray, newcomer: Flags) -> Iterator[Edges]:
    """Pairs that share a caption, case, punctuation and the forms of letters aside.

    Args:
        owners: int64 (m,), whose caption each is.
        texts: string (m,).
        newcomer: bool (n,).
    """
    plain = pc.utf8_normalize(texts, "NFKC")
    plain = pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(plain), r"[^\p{L}\p{M}\p{N}]+", " "))
    said = np.asarray(pc.greater(pc.utf8_length(plain), 0))
    words = pc.dictionary_encode(plain.combine_chunks()).indices.to_numpy(zero_copy_only=False)
    # A newcomer first, if there is one: all who say the same are then beside it.
    order = np.lexsort((~newcomer[owners], words))
    order = order[said[order]]
    words, owners = words[order], owners[order]
    first = np.flatnonzero(np.append(True, words[1:] != words[:-1])) if len(words) else np.zeros(0, np.int64)
    yield np.repeat(owners[first], np.diff(np.append(first, len(words)))), owners


Blocks = Sequence[tuple[int, Callable[[], Vectors]]]
"""How many pictures a part has, and what reads their embeddings: float32 (k, d), L2-normalised, NaN for none."""


def by_look(blocks: Blocks, newcomer: Flags, at_least: float, device: str) -> Iterator[Edges]:
    """Pairs of which one is a newcomer, and whose embeddings have at least this cosine: every such pair.

    It takes a multiplication for each newcomer and picture, so the first night of
    a large set is long: 100,000 pictures are minutes on two cores, and ten times as many a hundred times that.

    Args:
        blocks: One after the other all n pictures.
        newcomer: bool (n,).
        at_least: Above 0.
        device: Of torch, where the cosines are computed.
    """
    import torch

    def on_device(vectors: Vectors) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(vectors)).to(device)

    start, rows, held = 0, list[Positions](), list[Vectors]()
    for at, (count, read) in enumerate(blocks):
        new = np.flatnonzero(newcomer[start : start + count])
        if len(new):
            rows.append(start + new)
            held.append(read()[new])
        start += count
        if at + 1 < len(blocks) and sum(map(len, rows)) < _NEWCOMERS_AT_ONCE:
            continue
        if not held:
            continue
        ours, own = np.concatenate(rows), np.concatenate(held)
        here = on_device(own)
        for first, theirs in _others(blocks, newcomer, int(ours[-1])):
            near = (here @ on_device(theirs).T >= at_least - _ROUNDING).nonzero().cpu().numpy()
            one, other = ours[near[:, 0]], first + near[:, 1]
            # Of two newcomers the later one finds the earlier; whom a later part holds finds these.
            near = near[(one > other) | ~newcomer[other]]
            alike = near[exact_cosines(own[near[:, 0]], theirs[near[:, 1]]) >= at_least]
            yield ours[alike[:, 0]], first + alike[:, 1]
        rows, held = [], []


def exact_cosines(one: Vectors, other: Vectors) -> npt.NDArray[np.float64]:
    """Of L2-normalised vectors (n, d), pair by pair: the same whatever else is computed, and where."""
    cosines: npt.NDArray[np.float64] = np.einsum("nd,nd->n", one.astype(np.float64), other.astype(np.float64))
    return cosines


def _others(blocks: Blocks, newcomer: Flags, last: int) -> Iterator[tuple[int, Vectors]]:
    """The blocks that newcomers up to the `last` are compared with, each with the position of its first picture."""
    first = 0
    for count, read in blocks:
        # Newcomers that come later find these themselves.
        if first <= last or not newcomer[first : first + count].all():
            yield first, read()
        first += count
