"""The card tells what is so, and what strangers wrote stays text."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

import pyarrow as pa
import pytest

from vlmdata.config import PixelsConfig
from vlmdata.export.card import CardFacts, card
from vlmdata.export.card_pixels import FATES
from vlmdata.export.pixels import Change, Picture
from vlmdata.export.rows import ROWS
from vlmdata.export.tallies import PASSED_THROUGH, added_up, tally
from vlmdata.schema import filled

A_PICTURE = Picture(b"", "jpg", 1, 1)
MANIFEST: dict[str, Any] = {
    "dataset": "stamps",
    "export": "ab12",
    "samples": 1200,
    "captions": 2400,
    "settings": {"formats": ["parquet"]},
    "files": [{"format": "parquet", "samples": 1200, "bytes": 5_000_000}],
}


def rows_of(origin: str, model: str | None, license_: str | None = "CC0-1.0") -> pa.Table:
    caption = {"text": "x", "lang": "en", "origin": origin, "score": 0.3, "model": model}
    captions = pa.array([[caption]], ROWS.field("captions").type)
    return filled(ROWS, 1, id="1", key="k", sha256="s", license=license_, captions=captions)


def test_tallies_of_shards_add_up() -> None:
    total = added_up([tally(rows_of("source", "ViT-B-32")), tally(rows_of("duplicate:99", "ViT-B-32", None))])
    assert total["license"] == Counter({"CC0-1.0": 1, None: 1})
    assert total["origin"] == Counter({"source": 1, "duplicate": 1})
    assert total["model"] == Counter({"ViT-B-32": 2})
    assert not total.get("starter")


def test_no_rows_make_no_tallies() -> None:
    assert tally(rows_of("source", None).slice(0, 0)).num_rows == 0


def test_the_card_says_when_the_starter_judged_itself() -> None:
    circular = card(MANIFEST, added_up([tally(rows_of("model:starter", "starter@ab12"))]), {})
    assert "1 captions were written by the starter model and judged by the starter model" in circular
    for origin, model in (
        ("model:starter", "ViT-B-32"),
        ("source", "starter@ab12"),
        ("model:gpt", "starter"),
    ):
        assert "Circular" not in card(MANIFEST, added_up([tally(rows_of(origin, model))]), {})


def test_the_card_tells_counts_funnel_thresholds_and_limits() -> None:
    facts: CardFacts = {
        "stages": {
            "01_filtered": {
                "in": 3000,
                "kept": 2500,
                "rejected": 500,
                "held": 0,
                "failed": 0,
                "rejection_rate": 1 / 6,
                "mean_score": 0.312,
                "reasons": {"too_small": 500},
            }
        },
        "thresholds": [{"language": "zh", "model": "xlm-roberta", "accept_above": 0.28, "reject_below": 0.2}],
        "captioner": "vision-1",
    }
    text = card(MANIFEST, {"license": Counter({"GPL-2.0-only": 7, None: 2})}, facts)
    assert "1,200 pictures with 2,400 captions" in text
    assert "| 01_filtered | 3,000 | 2,500 | 500 | 0 | 0 | 16.7 | 0.312 |" in text
    assert "| 01_filtered | too_small | 500 |" in text
    assert "| zh | xlm-roberta | 0.28 | 0.2 |" in text
    assert "| `GPL-2.0-only` | 7 |" in text and "| not stated | 2 |" in text
    assert "`vision-1`" in text and "## Known limits" in text


def test_hostile_text_stays_text() -> None:
    hostile = "`<script>alert(1)</script>|\n# Title [x](http://y)"
    text = card(MANIFEST, {"license": Counter({hostile: 1})}, {})
    (line,) = [line for line in text.splitlines() if "script" in line]
    assert line.startswith("| `'<script>alert(1)</script>\\| # Title") and line.endswith("` | 1 |")
    named = card({**MANIFEST, "dataset": "<b>x</b>"}, {}, {})
    assert "<b>" not in named


def test_a_long_list_is_cut_and_the_rest_is_counted() -> None:
    text = card(MANIFEST, {"license": Counter({f"L{number:03d}": 2 for number in range(50)})}, {})
    assert "| 20 others | 40 |" in text and "L049" not in text


def test_the_card_tells_what_happened_to_pixels() -> None:
    changes: list[tuple[Change, ...]] = [(), (), ("turned", "resized"), ("converted", "resized", "padded")]
    pictures = [Picture(b"", "jpg", 1, 1, one) for one in changes]
    counted = added_up([tally(rows_of("source", None), pictures)])
    text = card(MANIFEST, counted, {})
    assert "in sRGB, without a colour profile" in text
    for said, count in {
        "none: the source's own compressed stream": 2,
        "turned upright": 1,
        "colours converted to sRGB": 1,
        "scaled down": 2,
        "put into a square": 1,
    }.items():
        assert f"| {said} | {count} |" in text
    assert "laid on white, as it was transparent" not in text
    assert "## Pictures" not in card(MANIFEST, {}, {})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (PixelsConfig(mode="resize", side=512), "No longest side is over 512 px (lanczos); none was enlarged. Each is"),
        (
            PixelsConfig(mode="pad", side=336, position="top-left", color="#000000", interpolation="box"),
            "Each is 336 px square: scaled down if it is larger (box), never enlarged, top-left on #000000. Each is",
        ),
        (PixelsConfig(formats=("webp", "jpg"), encode_as="jpg"), "Each is jpg or webp; jpg if it was encoded anew."),
    ],
)
def test_the_card_tells_what_was_asked_of_pixels(asked: PixelsConfig, said: str) -> None:
    settings = {**MANIFEST["settings"], "pixels": asked.settings()}
    text = card({**MANIFEST, "settings": settings}, added_up([tally(rows_of("source", None), [A_PICTURE])]), {})
    assert said in text


def test_every_change_has_words_on_the_card() -> None:
    assert set(FATES) == {PASSED_THROUGH, *get_args(Change)}
