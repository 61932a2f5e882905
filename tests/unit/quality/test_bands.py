"""Bands: their edges belong to the middle, in float32, and every caption and sample ends in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmdata.config import LanguageModel, QualityConfig
from vlmdata.errors import ConfigError
from vlmdata.layout import Stage, Step
from vlmdata.quality.bands import Band, bands, best_of_several
from vlmdata.quality.judges import Judges, judges
from vlmdata.quality.scores import cosine
from vlmdata.schema import AGAIN, MADE, SCORES, caption_table, filled

CLIP = QualityConfig()


def below(value: float) -> np.float32:
    return np.nextafter(np.float32(value), np.float32(-1))


def above(value: float) -> np.float32:
    return np.nextafter(np.float32(value), np.float32(1))


def banded(scores: list[Any], bench: Judges, language: str = "en") -> Band:
    n = len(scores)
    texts = pa.array([str(number) for number in range(n)], pa.string())
    table = filled(SCORES, n, id=texts, caption_id=texts, score=pa.array(scores, pa.float32()), language=language)
    return bands(table, bench)


@pytest.mark.parametrize(
    ("score", "outcome", "code"),
    [
        (above(0.28), "accepted", ""),
        (0.28, "held", "borderline"),
        (below(0.28), "held", "borderline"),
        (0.20, "held", "borderline"),
        (below(0.20), "rejected", "misaligned"),
        (-1.0, "rejected", "misaligned"),
        (1.0, "accepted", ""),
        (float("nan"), "failed", "not_embedded"),
        (None, "held", "unverified_language"),
    ],
)
def test_edges(score: Any, outcome: str, code: str) -> None:
    band = banded([score], judges(CLIP))
    assert (band.outcome.to_pylist(), band.code.to_pylist()) == ([outcome], [code])


def test_the_bound_told_is_the_one_that_was_missed() -> None:
    band = banded([0.9, 0.25, 0.1, float("nan"), None], judges(CLIP))
    assert band.bound.to_pylist() == [None, float(np.float32(0.28)), float(np.float32(0.2)), None, None]


def test_captions_that_nobody_can_judge_are_accepted_if_the_config_says_so() -> None:
    table = filled(SCORES, 3, id=(n := pa.array(["0", "1", "2"])), caption_id=n, language="xx")
    table = table.set_column(
        SCORES.get_field_index("contradicted"), SCORES.field("contradicted"), pa.array([None, True, False])
    )
    for unverified, outcome in (("hold", "held"), ("export", "accepted")):
        band = bands(table, judges(CLIP), unverified)  # type: ignore[arg-type]
        assert band.outcome.to_pylist() == [outcome, "held", outcome]
        assert band.code.to_pylist() == ["unverified_language", "language_contradicted", "unverified_language"]


def test_an_image_of_unjudged_captions_alone_is_exported_without_a_score(
    pictures: Any, tiny: Callable[..., Any]
) -> None:
    files = {name: pictures.png(seed) for seed, name in enumerate(["both.png", "alone.png", "bad.png"])}
    captions = {"both.png": ["fine", "unknown"], "alone.png": ["unknown 2"], "bad.png": ["wrong", "unclear"]}
    scores = {"fine": 0.4, "unknown": None, "unknown 2": None, "wrong": 0.1, "unclear": 0.25}
    judged = tiny(files, captions, quality={"unverified_languages": "export"}, shard_size=3)
    judged = judged.ingested().filtered().captioned().judged(scores)
    report = judged.report(Stage.CHECKED)
    report.samples.check("samples")
    report.captions.check("captions")
    kept = {row["key"]: row["best_score"] for row in judged.rows(Step.CHECKED, "samples")}
    assert kept == {"both.png": pytest.approx(0.4), "alone.png": None}
    assert report.score_sum == pytest.approx(0.4) and report.reasons == {"borderline": 1}
    [manifest] = [judged.dataset.manifest(shard, Step.CHECKED) for shard in judged.shards]
    assert (manifest.facts["score_count"], manifest.facts["unverified"]) == (1, 2)
    texts = {row["text"]: row["score"] for row in judged.rows(Step.CHECKED, "captions")}
    assert texts == {"fine": pytest.approx(0.4), "unknown": None, "unknown 2": None}
    exported = {row["key"]: row["best_score"] for row in judged.exported().rows(Step.FINAL, "samples")}
    assert exported == kept


def test_no_captions() -> None:
    band = banded([], judges(CLIP))
    assert (len(band.outcome), len(band.code), len(band.bound)) == (0, 0, 0)


def test_each_language_has_its_own_bounds() -> None:
    many = "xlm-roberta-base-ViT-B-32"
    own = LanguageModel(model=many, pretrained="laion5b_s13b_b90k", accept_above=0.5, reject_below=0.4)
    bench = judges(QualityConfig(languages={"zh-Hans": own}))
    assert banded([0.45], bench).outcome.to_pylist() == ["accepted"]
    assert banded([0.45], bench, "zh").outcome.to_pylist() == ["held"]
    assert bench.of("de") is None


@pytest.mark.parametrize(("accept", "reject"), [(0.1, 0.5), ("auto", 0.9), (0.01, "auto")])
def test_bounds_upside_down_are_refused(accept: Any, reject: Any) -> None:
    with pytest.raises(ConfigError, match="expected reject_below to be the lower"):
        judges(QualityConfig(accept_above=accept, reject_below=reject))


def test_one_bound_for_both_leaves_only_itself_held() -> None:
    bench = judges(QualityConfig(accept_above=0.3, reject_below=0.3))
    assert banded([below(0.3), 0.3, above(0.3)], bench).outcome.to_pylist() == ["rejected", "held", "accepted"]


@given(st.lists(st.floats(-1, 1, width=32) | st.none() | st.just(float("nan")), max_size=30))
def test_every_score_has_one_band(scores: list[Any]) -> None:
    band = banded(scores, judges(CLIP))
    assert set(band.outcome.to_pylist()) <= {"accepted", "held", "rejected", "failed"}
    for score, outcome in zip(scores, band.outcome.to_pylist(), strict=True):
        if score is not None and not np.isnan(score):
            accepted, rejected = score > np.float32(0.28), score < np.float32(0.2)
            assert outcome == ("accepted" if accepted else "rejected" if rejected else "held")


scores_of = st.lists(st.sampled_from([0.5, 0.28, 0.25, 0.2, 0.1, None, float("nan")]), min_size=1, max_size=3)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_=st.lists(scores_of, min_size=1, max_size=4))
def test_a_sample_is_as_good_as_its_best_caption(
    pictures: Any, tiny_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, given_: list[list[Any]]
) -> None:
    names = [f"{number}.png" for number in range(len(given_))]
    captions = {name: [f"{name} {place}" for place in range(len(given_[at]))] for at, name in enumerate(names)}
    scores = {f"{names[at]} {place}": score for at, row in enumerate(given_) for place, score in enumerate(row)}
    files = {name: pictures.png(seed) for seed, name in enumerate(names)}
    built = tiny_in(tmp_path_factory.mktemp("bands"), files, captions).ingested().filtered().captioned().judged(scores)
    report = built.report(Stage.CHECKED)
    report.samples.check("samples")
    report.captions.check("captions")

    best = {}
    for name, row in zip(names, given_, strict=True):
        outcomes = banded(row, judges(CLIP)).outcome.to_pylist()
        best[name] = next(one for one in ("accepted", "held", "failed", "rejected") if one in outcomes)
    kept = {row["key"]: row["best_score"] for row in built.rows(Step.CHECKED, "samples")}
    assert kept == {name: 0.5 for name, outcome in best.items() if outcome == "accepted"}
    lost = {row["key"]: row["outcome"] for row in built.rows(Step.CHECKED, "rejects")}
    assert lost == {name: outcome for name, outcome in best.items() if outcome != "accepted"}
    assert {row["text"] for row in built.rows(Step.CHECKED, "captions")} == {t for t, s in scores.items() if s == 0.5}


def test_cosines_do_not_depend_on_length() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(2, 20, 8)).astype(np.float32)
    found = cosine(images, texts * np.float32(7))
    expected = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(images, texts, strict=True)]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


FIRST, AGAIN_1, AGAIN_2, OWN = f"{MADE}m|p", f"{MADE}m|p{AGAIN}1", f"{MADE}m|p{AGAIN}2", "source"


def judged_together(rows: list[tuple[str, str, float]]) -> list[tuple[str, str]]:
    """Outcome and code of captions given as sample, origin and score."""
    texts = [f"text {place}" for place in range(len(rows))]
    captions = caption_table([id_ for id_, *_ in rows], texts, [None] * len(rows), [origin for _, origin, _ in rows])
    scores = pa.chunked_array([pa.array([score for *_, score in rows], pa.float32())])
    band = best_of_several(banded([score for *_, score in rows], judges(CLIP)), captions, scores)
    assert len(band.bound) == len(rows)
    return list(zip(band.outcome.to_pylist(), band.code.to_pylist(), strict=True))


def test_of_a_model_s_captions_that_would_do_the_best_stays() -> None:
    found = judged_together([("a", FIRST, 0.30), ("a", AGAIN_1, 0.35), ("a", AGAIN_2, 0.33), ("a", OWN, 0.31)])
    assert found == [("rejected", "outscored"), ("accepted", ""), ("rejected", "outscored"), ("accepted", "")]


def test_what_would_not_do_keeps_its_own_reason() -> None:
    found = judged_together([("a", FIRST, 0.25), ("a", AGAIN_1, 0.30), ("b", FIRST, 0.1), ("b", AGAIN_1, 0.25)])
    assert found == [("held", "borderline"), ("accepted", ""), ("rejected", "misaligned"), ("held", "borderline")]


def test_a_sample_that_was_asked_about_once_has_no_rivals() -> None:
    rows = [("a", FIRST, 0.3), ("a", f"{MADE}other|p", 0.4), ("b", OWN, 0.3), ("b", FIRST, 0.5), ("c", AGAIN_1, 0.3)]
    assert judged_together(rows) == [("accepted", "")] * len(rows)
    assert judged_together([]) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from([FIRST, AGAIN_1, AGAIN_2, OWN]),
            st.sampled_from([0.1, 0.25, 0.3, 0.4]),
        ),
        max_size=8,
    )
)
def test_rivals_end_with_one_winner_and_nothing_else_moves(rows: list[tuple[str, str, float]]) -> None:
    found = judged_together(rows)
    alone = banded([score for *_, score in rows], judges(CLIP)).outcome.to_pylist()
    for id_ in "ab":
        mine = [place for place, row in enumerate(rows) if row[0] == id_]
        made = [place for place in mine if rows[place][1] != OWN and alone[place] == "accepted"]
        winners = [place for place in made if found[place][0] == "accepted"]
        asked_again = any(AGAIN in rows[place][1] for place in mine)
        assert len(winners) == (min(1, len(made)) if asked_again else len(made))
        assert all(rows[place][2] <= rows[won][2] for won in winners for place in made) or not asked_again
        assert all(found[place][0] == alone[place] for place in mine if place not in made)
