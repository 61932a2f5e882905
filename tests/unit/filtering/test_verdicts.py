"""What stays when some of it is published: held against a plain search, over random histories."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata.filtering.verdicts import Candidates, Verdicts, settle

RADIUS = 2
Hashes = npt.NDArray[np.uint64]


def candidates(
    hashes: list[int], pixels: list[int], published: set[int] = frozenset(), before: Verdicts | None = None
) -> Candidates:
    n = len(hashes)
    return Candidates(
        ids=pa.array([f"{at:03d}" for at in range(n)], pa.string()),
        hashes=np.array(hashes, np.uint64),
        pixels=np.array(pixels, np.int64),
        published=np.array([at in published for at in range(n)], bool),
        before=before or nothing(n),
    )


def nothing(n: int) -> Verdicts:
    return Verdicts(np.full(n, -1, np.int64), np.full(n, -1, np.int16), np.zeros(n, bool))


def plain(given: Candidates, radius: int) -> set[int]:
    """Published first, then most pixels, then smallest id; each stays unless one that stays is near."""
    order = sorted(range(len(given.hashes)), key=lambda at: (not given.published[at], -given.pixels[at], at))
    kept: list[int] = []
    for at in order:
        if all((int(given.hashes[at]) ^ int(given.hashes[other])).bit_count() > radius for other in kept):
            kept.append(at)
    return set(kept)


def test_a_published_one_stays_before_a_larger_one() -> None:
    found = settle(candidates([0b0, 0b1, 0b1111_0000], [10, 99, 5], {0}), RADIUS)
    assert found.keeper.tolist() == [-1, 0, -1]
    assert found.distance.tolist() == [-1, 1, -1]
    assert found.gives.tolist() == [False, False, False], "a published one stays as it is"


def test_nothing_published_the_largest_stays_and_gains_captions() -> None:
    found = settle(candidates([0b0, 0b1], [10, 99]), RADIUS)
    assert found.keeper.tolist() == [1, -1]
    assert found.gives.tolist() == [True, False]


def test_what_a_published_one_displaced_comes_back_when_that_one_leaves() -> None:
    gone = Verdicts(np.array([-1, -1], np.int64), np.array([1, -1], np.int16), np.array([True, False]))
    found = settle(candidates([0b0, 0b1111], [10, 10], before=gone), RADIUS)
    assert found.kept.tolist() == [True, True]


def test_a_dropped_one_goes_on_naming_whom_it_named() -> None:
    before = Verdicts(np.array([-1, 0, -1], np.int64), np.array([-1, 2, -1], np.int16), np.array([False, True, False]))
    given = candidates([0b0, 0b11, 0b111_1111_1011], [10, 5, 99], {0}, before)
    nearer = candidates([0b0, 0b11, 0b1000_0000_0011], [10, 5, 99], {0}, before)
    assert settle(given, RADIUS).keeper.tolist() == [-1, 0, -1]
    found = settle(nearer, RADIUS)
    assert (found.keeper[1], found.distance[1], found.gives[1]) == (0, 2, True)


def test_a_newcomer_takes_the_place_of_one_that_is_not_published() -> None:
    before = Verdicts(np.array([-1, 0, -1], np.int64), np.array([-1, 1, -1], np.int16), np.array([False, True, False]))
    found = settle(candidates([0b0, 0b1, 0b10], [10, 5, 99], set(), before), RADIUS)
    assert found.keeper.tolist() == [2, 2, -1]
    assert found.gives.tolist() == [True, True, False]


@dataclass
class History:
    """Pictures by id: what they are, what is published, and whom the dropped ones name."""

    hashes: dict[int, int] = field(default_factory=dict)
    pixels: dict[int, int] = field(default_factory=dict)
    published: set[int] = field(default_factory=set)
    named: dict[int, tuple[int, int, bool]] = field(default_factory=dict)

    def now(self) -> tuple[list[int], Candidates]:
        ids = sorted(self.hashes)
        place = {id_: at for at, id_ in enumerate(ids)}
        told = [self.named.get(id_, (-1, -1, False)) for id_ in ids]
        before = Verdicts(
            np.array([place.get(keeper, -1) for keeper, _, _ in told], np.int64),
            np.array([distance for _, distance, _ in told], np.int16),
            np.array([gives for _, _, gives in told], bool),
        )
        published = {place[id_] for id_ in self.published if id_ in place}
        return ids, candidates([self.hashes[i] for i in ids], [self.pixels[i] for i in ids], published, before)


Night = tuple[list[tuple[int, int]], set[int], set[int]]
"""Hash and pixels of those that come, ids of those that go, and of those that are unfit for other reasons."""
DROPS = st.lists(st.tuples(st.integers(0, 255), st.integers(1, 4)), max_size=12)
NIGHT = st.tuples(DROPS, st.sets(st.integers(0, 60), max_size=4), st.sets(st.integers(0, 60), max_size=6))


@settings(max_examples=300, deadline=None)
@given(st.lists(NIGHT, min_size=1, max_size=6))
def test_any_history_decides_as_a_plain_search_does(
    nights: list[tuple[list[tuple[int, int]], set[int], set[int]]],
) -> None:
    """Each night pictures come and others go; of those that stay some are not published, for other reasons."""
    history, next_id = History(), 0
    for drop, leave, unfit in nights:
        for hash_, pixels in drop:
            history.hashes[next_id], history.pixels[next_id] = hash_, pixels
            next_id += 1
        for id_ in leave & set(history.hashes):
            del history.hashes[id_], history.pixels[id_]
        ids, given_ = history.now()
        found = settle(given_, RADIUS)
        assert {at for at, stays in enumerate(found.kept) if stays} == plain(given_, RADIUS)
        assert all(found.kept[given_.published]), "what is published stays"
        for at in np.flatnonzero(~found.kept):
            keeper = int(found.keeper[at])
            assert found.kept[keeper]
            distance = (int(given_.hashes[at]) ^ int(given_.hashes[keeper])).bit_count()
            assert distance == found.distance[at] <= RADIUS
            assert not (
                found.gives[at] and given_.published[keeper] and history.named.get(ids[at], (-1,))[0] != ids[keeper]
            )
        again = settle(Candidates(given_.ids, given_.hashes, given_.pixels, given_.published, found), RADIUS)
        assert [a.tolist() for a in (again.keeper, again.distance, again.gives)] == [
            b.tolist() for b in (found.keeper, found.distance, found.gives)
        ], "the same again decides the same"
        kept = {ids[at] for at in np.flatnonzero(found.kept)}
        history.published = (history.published & kept) | (kept - unfit)
        history.named = {
            ids[at]: (ids[found.keeper[at]], int(found.distance[at]), bool(found.gives[at]))
            for at in np.flatnonzero(~found.kept)
        }
