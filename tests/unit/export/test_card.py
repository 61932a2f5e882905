"""The card tells what is so, and what strangers wrote stays text."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from vlmdata.export.card import CardFacts, card
from vlmdata.export.rows import ROWS
from vlmdata.export.tallies import added_up, tally
from vlmdata.schema import filled

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
