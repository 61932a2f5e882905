"""Near-duplicates of a set that grows: what is published stays, and shards that are as they were are not read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmdata.layout import Step


def test_a_larger_copy_that_comes_later_is_dropped_for_the_published_one(
    growing: Callable[..., Any], pictures: Any
) -> None:
    set_ = growing({"a.png": pictures.png(1), "b.png": pictures.png(2)})
    set_.publish()
    set_.add({"z.png": pictures.png(1, 128, 96)})
    shards = set_.filtered()
    assert set_.near_duplicates(shards) == {"z.png": "a.png"}
    assert set_.captions(shards) == {"a.png": ["a.png"], "b.png": ["b.png"]}, "a published one stays as it is"
    told = set_.rows(shards, Step.FILTERED, "caption_rejects")
    assert [(row["text"], row["code"]) for row in told] == [("z.png", "sample_rejected")]


def test_without_a_version_the_larger_one_stays(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({"a.png": pictures.png(1), "z.png": pictures.png(1, 128, 96)})
    shards = set_.filtered()
    assert set_.near_duplicates(shards) == {"a.png": "z.png"}
    assert set_.captions(shards) == {"z.png": ["z.png", "a.png"]}


def test_what_was_not_published_gives_way_to_a_better_one(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({"a.png": pictures.png(1), "b.png": pictures.png(2)})
    assert set_.publish({"a.png": 0.1}).samples == 1
    set_.add({"z.png": pictures.png(1, 128, 96)})
    shards = set_.filtered()
    assert set_.near_duplicates(shards) == {"a.png": "z.png"}
    assert set_.captions(shards)["z.png"] == ["z.png", "a.png"]


def test_what_a_published_one_displaced_is_decided_anew_when_that_one_leaves(
    growing: Callable[..., Any], pictures: Any
) -> None:
    set_ = growing({"a.png": pictures.png(1, 128, 96), "b.png": pictures.png(2), "y.png": pictures.png(1)})
    first = set_.publish()
    assert set_.near_duplicates(first.shards) == {"y.png": "a.png"}
    set_.add({"z.png": pictures.png(1)})
    set_.publish()
    set_.remove("a.png")
    shards = set_.filtered()
    assert set_.near_duplicates(shards) == {"z.png": "y.png"} or set_.near_duplicates(shards) == {"y.png": "z.png"}
    assert "a.png" not in set_.captions(shards)


def test_a_picture_that_is_replaced_is_no_duplicate_of_its_old_self(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({"a.png": pictures.png(1), "b.png": pictures.png(2)})
    first = set_.publish()
    set_.add({"a.png": pictures.png(1, 128, 96)})
    second = set_.publish()
    assert set_.near_duplicates(second.shards) == {}
    assert (first.samples, second.samples) == (2, 2)
    assert second.changes.model_dump() == {"added": 0, "removed": 0, "changed": 1}


def test_the_same_again_decides_the_same_and_publishes_nothing(growing: Callable[..., Any], pictures: Any) -> None:
    files = {f"{n}.png": pictures.png(n % 4, 64 + 16 * n, 48 + 12 * n) for n in range(8)}
    set_ = growing(files)
    first = set_.publish({"7.png": 0.1, "3.png": 0.1})
    before = set(set_.dataset.store.list("tiny/01_filtered"))
    again = set_.publish({"7.png": 0.1, "3.png": 0.1})
    assert again.number == first.number == 1
    assert set(set_.dataset.store.list("tiny/01_filtered")) == before, "nothing was decided anew"


def test_gained_captions_stay_with_the_published_one(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({"a.png": pictures.png(1, 128, 96), "b.png": pictures.png(2), "y.png": pictures.png(1)})
    set_.publish()
    set_.add({f"new{n}.png": pictures.png(10 + n) for n in range(3)})
    shards = set_.filtered()
    assert set_.captions(shards)["a.png"] == ["a.png", "y.png"]
    set_.publish()
    set_.remove("y.png")
    assert set_.captions(set_.filtered())["a.png"] == ["a.png"], "its giver has left, and its words with it"


def test_shards_that_are_as_they_were_are_not_read(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({f"a{n}.png": pictures.png(n) for n in range(4)})
    first = set_.publish()
    facts = [set_.dataset.manifest(shard, Step.FACTS).tables["facts"].path for shard in first.shards]
    for path in facts:
        Path(set_.dataset.store.locate(path)).unlink()
    set_.add({"z.png": pictures.png(1, 128, 96)})
    shards = set_.decided()
    tables = set_.dataset.manifest(shards[0], Step.DUPLICATES).tables
    assert [name for name in tables if name.startswith("dropped/")] == [f"dropped/{shards[-1].name}"]


def test_other_rules_decide_anew(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({"a.png": pictures.png(1), "b.png": pictures.png(2)})
    set_.publish()
    set_.add({"z.png": pictures.png(1, 128, 96)})
    set_.tiny.config = set_.config.model_copy(
        update={"dedup": set_.config.dedup.model_copy(update={"max_distance": 7})}
    )
    assert set_.near_duplicates(set_.filtered()) == {"a.png": "z.png"}
