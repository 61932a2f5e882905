"""The rules of stages 00, 02 and 03: broken by what breaks them, and by nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations import captioned, quality_checked, raw
from expectations.rule import Figure
from vlmdata.config import BuildConfig
from vlmdata.config_reading import parse_config

ACCEPT = 0.28
SCORES = st.none() | st.just(float("nan")) | st.sampled_from([0.28, 0.2800001, 0.3, 0.1, -1.0])
HEX = "0123456789abcdef"


def config(unverified: str = "hold") -> BuildConfig:
    quality = {"model": "starter", "accept_above": ACCEPT, "reject_below": 0.2, "unverified_languages": unverified}
    return parse_config({"dataset": "x", "source": {"kind": "folder", "path": "p"}, "quality": quality})


def figures(stage: Any, samples: list[dict[str, Any]], captions: list[dict[str, Any]], **how: Any) -> dict[str, Figure]:
    tables = (
        pa.Table.from_pylist(samples, schema=stage.SAMPLES),
        pa.Table.from_pylist(captions, schema=stage.CAPTIONS),
    )
    return {rule.name: rule.figure for rule in stage.rules(*tables, config(**how))}


@given(st.lists(st.text(HEX, min_size=64, max_size=64) | st.text(max_size=70), max_size=12))
def test_only_64_hex_digits_are_a_digest(digests: list[str]) -> None:
    rows = [{"id": str(n), "sha256": digest} for n, digest in enumerate(digests)]
    figure = figures(raw, rows, [])["sha256"]
    wrong = [str(n) for n, digest in enumerate(digests) if len(digest) != 64 or not set(digest) <= set(HEX)]
    assert (figure.value, figure.of, list(figure.ids)) == (len(wrong), len(digests), wrong[:5])
    assert all("\n" not in said for said in figure.seen)


@given(st.sets(st.integers(0, 20)), st.lists(st.integers(0, 20), max_size=30))
def test_only_samples_without_a_caption_are_named(samples: set[int], owners: list[int]) -> None:
    rows, captions = [{"id": str(n)} for n in samples], [{"id": str(n)} for n in owners]
    figure = figures(captioned, rows, captions)["captioned"]
    bare = samples - set(owners)
    assert (figure.value, figure.of) == (len(bare), len(samples))
    assert set(figure.ids) <= {str(n) for n in bare} and len(figure.ids) == min(5, len(bare))


def passes(score: float | None, language: str, unverified: str) -> bool:
    if language == "en":
        return score is not None and bool(np.float32(score) > np.float32(ACCEPT))
    return unverified == "export" and score is None


@given(st.lists(st.tuples(st.integers(0, 5), SCORES, st.sampled_from(["en", "xx"])), max_size=12))
@pytest.mark.parametrize("unverified", ["hold", "export"])
def test_scores_are_held_against_the_bound_as_the_bands_are(
    unverified: str, rows: list[tuple[int, float | None, str]]
) -> None:
    samples = [{"id": str(n)} for n in range(6)]
    captions = [{"id": str(owner), "score": score, "language": tag} for owner, score, tag in rows]
    found = figures(quality_checked, samples, captions, unverified=unverified)
    bad = [str(owner) for owner, score, tag in rows if not passes(score, tag, unverified)]
    assert (found["above_accept_bound"].value, found["above_accept_bound"].of) == (len(bad), len(rows))
    assert list(found["above_accept_bound"].ids) == bad[:5]
    known = {str(n) for n, score, tag in rows if score is not None or passes(score, tag, unverified)}
    assert found["scored"].value == 6 - len(known) and not set(found["scored"].ids) & known
