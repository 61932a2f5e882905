"""What a page shows: some of each kind, the same whenever it is made, and no more than is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from vlmdata.report.draw import Gallery, Item, galleries, shown
from vlmdata.report.ledger import Ledger, ledger_of
from vlmdata.runs import existing_run, start_run


@pytest.fixture(scope="module")
def ledger(story: Any) -> Iterator[Ledger]:
    with ledger_of(existing_run(story.dataset)) as found:
        yield found


def by_section(drawn: list[Gallery]) -> dict[str, list[Gallery]]:
    found: dict[str, list[Gallery]] = {}
    for gallery in drawn:
        found.setdefault(gallery.section, []).append(gallery)
    return found


def test_each_reason_has_its_gallery(ledger: Ledger) -> None:
    sections = by_section(galleries(ledger, 10))
    assert [one.asks["reason"] for one in sections["rejected"]] == [
        *("missing_file", "too_small", "truncated", "no_caption", "misaligned"),
    ]
    assert [one.asks["reason"] for one in sections["held"]] == ["borderline"]
    assert {one.asks["reason"] for one in sections["captions"]} >= {"empty_caption", "misaligned", "borderline"}


def test_a_cluster_begins_with_the_one_that_stayed(ledger: Ledger) -> None:
    [cluster] = by_section(galleries(ledger, 10))["duplicates"]
    keeper, gone = cluster.items
    [row] = ledger.rows("SELECT id, related, value FROM samples WHERE code = 'near_duplicate'")
    assert (keeper.id, gone.id, gone.distance) == (row["related"], row["id"], row["value"])


def test_the_worst_pair_is_the_first_of_the_worst_and_the_last_of_the_best(ledger: Ledger) -> None:
    worst, best = by_section(galleries(ledger, 10))["pairs"]
    assert [item.caption for item in worst.items] == [item.caption for item in reversed(best.items)]
    lowest = ledger.value("SELECT arg_min(caption_id, score) FROM captions WHERE outcome = 'kept'")
    assert worst.items[0].caption == lowest


def test_captions_that_did_not_find_their_picture_say_how_far_off_they_were(ledger: Ledger) -> None:
    [row] = ledger.rows("SELECT id, caption_id FROM captions WHERE outcome = 'kept' ORDER BY id LIMIT 1")
    found = [{**row, "to_text": 12, "gallery": 100}, {**row, "to_text": 1, "gallery": 100}]
    *_, gallery = by_section(galleries(ledger, 10, found))["pairs"]
    assert gallery.items == (Item(row["id"], row["caption_id"], "its caption comes as no. 12 of 100"),)


def test_the_same_ones_are_drawn_and_fewer_are_the_first_of_more(ledger: Ledger) -> None:
    assert galleries(ledger, 10) == galleries(ledger, 10)
    for few, many in zip(galleries(ledger, 1), galleries(ledger, 10), strict=False):
        assert few.items == many.items[: len(few.items)] and few.total == many.total


def test_of_many_only_so_many_are_shown(tiny: Any, pictures: Any) -> None:
    from vlmdata.layout import Stage

    start = tiny({f"{n}.png": pictures.png(n, 20, 20) for n in range(12)}, None, shard_size=5)
    run = start_run(start.dataset, start.config)
    built = start.ingested()
    run.stage_done(built.report(Stage.RAW))
    run.stage_done(built.filtered().report(Stage.FILTERED))
    with ledger_of(run) as found:
        [gallery] = galleries(found, 5)
        ids = sorted(row["id"] for row in found.rows("SELECT id FROM samples"))
    assert (gallery.total, [item.id for item in gallery.items]) == (12, ids[:5])


def test_no_gallery_waits_for_another_one_s_thumbnails() -> None:
    drawn = [
        Gallery("kept", name, "", 3, tuple(Item(f"{name}{n}") for n in range(count)))
        for name, count in (("a", 3), ("b", 1), ("c", 2))
    ]
    assert shown(drawn) == ["a0", "b0", "c0", "a1", "c1", "a2"]
    assert shown([*drawn, drawn[0]]) == shown(drawn)
