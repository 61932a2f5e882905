"""Three bands: above one bound accepted, below the other rejected, between them held.

Scores and bounds are float32 when they are compared: 0.28 itself is held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Result, Shard, TableRef, run_once
from vlmdata.config import QualityConfig
from vlmdata.layout import Step
from vlmdata.quality.judges import Judges, judges
from vlmdata.quality.scorers import beyond_bounds, measure_marks, scorers
from vlmdata.schema import (
    AGAIN,
    CAPTION_REJECTS,
    CAPTIONS,
    CHECKED,
    FILTERED,
    JUDGED_CAPTIONS,
    MADE,
    MARKS,
    REJECTS,
    SCORES,
    filled,
)

ACCEPTED, HELD, REJECTED, FAILED = "accepted", "held", "rejected", "failed"
UNVERIFIED = "unverified_language"


@dataclass(frozen=True)
class Band:
    """A caption's outcome and why: arrays of n captions."""

    outcome: pa.Array
    code: pa.Array
    bound: pa.Array


def judge_shard(dataset: Dataset, shard: Shard, config: QualityConfig) -> Shard:
    """Stage 03 for one shard; embeds nothing.

    A sample is accepted if one of its captions is, and goes on with its
    accepted captions; one whose picture is beyond a scorer's bound is not, and
    its captions share its fate. Tables `samples` (`schema.CHECKED`),
    `captions` (`schema.JUDGED_CAPTIONS`), `rejects`, `caption_rejects`.
    """
    bench = judges(config)
    marks = {column: one.tables["marks"] for column, one in measure_marks(dataset, shard, config).items()}
    reads = [
        dataset.digest(shard, Step.CAPTIONED, "samples", FILTERED.names),
        dataset.digest(shard, Step.CAPTIONED, "captions", CAPTIONS.names),
        dataset.digest(shard, Step.SCORES, "scores", SCORES.names),
        *[f"{column} {table.digest(['id', 'value'])}" for column, table in marks.items()],
    ]
    spoken = sorted(set(dataset.read(shard, Step.SCORES, "scores", ["language"])["language"].to_pylist()))
    settings = {
        "languages": {language: judge.settings() for language in spoken if (judge := bench.of(language))},
        "unverified": config.unverified_languages,
        "printed_text_drop": config.printed_text_drop,
        "scorers": {name: bounds.settings() for name, bounds in config.scorers.items()},
    }
    return run_once(
        dataset, shard, Step.CHECKED, reads, settings, lambda _: _work(dataset, shard, bench, config, marks)
    )


def bands(scores: pa.Table, bench: Judges, unverified: Literal["hold", "export"] = "hold") -> Band:
    """The band of each row of `schema.SCORES`.

    Codes: language_contradicted (the text is in another language than it
    declares), misaligned (below the reject bound), borderline (between the
    bounds), unverified_language (no judge knows it: held, or accepted if
    `unverified` says so), not_embedded (NaN).
    """
    score = scores["score"].to_numpy().astype(np.float32)
    accept, reject = _bounds(scores["language"], bench)
    unscored = ~scores["score"].is_valid().to_numpy(zero_copy_only=False)
    lost = np.isnan(score) & ~unscored
    contradicted = pc.fill_null(scores["contradicted"], False).to_numpy()
    with np.errstate(invalid="ignore"):
        choices: list[tuple[Any, str, str, Any]] = [
            (contradicted, HELD, "language_contradicted", np.nan),
            (unscored, ACCEPTED if unverified == "export" else HELD, UNVERIFIED, np.nan),
            (lost, FAILED, "not_embedded", np.nan),
            (score > accept, ACCEPTED, "", np.nan),
            (score < reject, REJECTED, "misaligned", reject),
        ]
    conditions = [condition for condition, *_ in choices]
    bound = np.select(conditions, [np.broadcast_to(b, score.shape) for *_, b in choices], accept)
    return Band(
        outcome=pa.array(np.select(conditions, [outcome for _, outcome, *_ in choices], HELD).tolist(), pa.string()),
        code=pa.array(np.select(conditions, [code for _, _, code, _ in choices], "borderline").tolist(), pa.string()),
        bound=pa.array(bound.astype(np.float64), from_pandas=True),
    )


def best_of_several(band: Band, captions: pa.Table, scores: pa.ChunkedArray) -> Band:
    """Of captions that a model was asked for more than once, the best stays accepted; the others are `outscored`.

    Each language has a best of its own.
    """
    owner = pc.binary_join_element_wise(captions["id"], pc.fill_null(captions["lang"], ""), " ")
    asked_again = owner.filter(pc.match_substring(captions["origin"], AGAIN))
    if not len(asked_again):
        return band
    made = pc.starts_with(captions["origin"], MADE)
    rivals = pc.and_(pc.and_(pc.is_in(owner, value_set=asked_again), made), pc.equal(band.outcome, ACCEPTED))
    rows = pa.table({"owner": owner, "score": scores, "caption_id": captions["caption_id"]}).filter(rivals)
    best = rows.sort_by([("owner", "ascending"), ("score", "descending"), ("caption_id", "ascending")])
    owners = best["owner"].to_numpy(zero_copy_only=False)
    first = np.concatenate([[True], owners[1:] != owners[:-1]]) if len(owners) else np.zeros(0, bool)
    winners = best["caption_id"].filter(pa.array(first))
    lost = pc.and_(rivals, pc.invert(pc.is_in(captions["caption_id"], value_set=winners))).combine_chunks()
    return Band(
        outcome=pc.if_else(lost, REJECTED, band.outcome),
        code=pc.if_else(lost, "outscored", band.code),
        bound=band.bound,
    )


def _bounds(languages: pa.ChunkedArray, bench: Judges) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Accept and reject bound of each caption, NaN where there is no judge."""
    encoded = pc.dictionary_encode(languages.combine_chunks())
    found = [bench.of(language) for language in encoded.dictionary.to_pylist()]
    nan = np.float32("nan")
    accept = np.array([judge.accept_above if judge else nan for judge in found], np.float32)
    reject = np.array([judge.reject_below if judge else nan for judge in found], np.float32)
    rows = encoded.indices.to_numpy()
    return accept[rows], reject[rows]


def bounds_of(bench: Judges, languages: pa.ChunkedArray) -> dict[str, dict[str, Any]]:
    """By language, the judge of its captions, both bounds, and where those come from."""
    judged = {language: bench.of(language) for language in sorted(pc.unique(languages).to_pylist())}
    return {
        language: {
            "model": judge.identity,
            "accept_above": float(str(judge.accept_above)),
            "reject_below": float(str(judge.reject_below)),
            "from": judge.note,
            "found_for": judge.language,
        }
        for language, judge in judged.items()
        if judge
    }


def _work(
    dataset: Dataset, shard: Shard, bench: Judges, config: QualityConfig, marks: Mapping[str, TableRef]
) -> Result:
    samples = _measured_samples(dataset, dataset.read(shard, Step.CAPTIONED, "samples"), marks)
    captions = dataset.read(shard, Step.CAPTIONED, "captions")
    scores = dataset.read(shard, Step.SCORES, "scores")
    beyond = beyond_bounds(samples, samples, scorers(config))
    band = best_of_several(bands(scores, bench, config.unverified_languages), captions, scores["score"])
    band = _as_their_pictures(band, captions["id"], beyond)
    printed = printed_text(scores, config.printed_text_drop)
    judged = _judged(captions, scores.append_column("printed_text", printed), band)
    caption_rejects = _caption_rejects(captions, scores, band)
    within = samples.filter(pc.invert(pc.is_in(samples["id"], value_set=beyond["id"])))
    kept, misaligned = _samples(within, scores["score"], captions["id"], band)
    rejects = pa.concat_tables([beyond, misaligned])
    return Result(
        {"samples": kept, "captions": judged, "rejects": rejects, "caption_rejects": caption_rejects},
        samples=Counts.of(kept.num_rows, rejects["outcome"], came=samples.num_rows),
        captions=Counts.of(judged.num_rows, caption_rejects["outcome"], came=captions.num_rows),
        facts={
            "score_sum": _sum(kept["best_score"]),
            "score_count": len(kept["best_score"]) - kept["best_score"].null_count,
            "scored": _best_of_all(scores),
            "unverified": judged["score"].null_count,
            "printed_text": _sum(judged["printed_text"]),
            "truncated": _sum(judged["truncated"]),
            "bounds": bounds_of(bench, scores["language"]),
        },
    )


def _sum(column: pa.ChunkedArray) -> Any:
    """Of what is not null."""
    return pc.sum(column, min_count=0).as_py()


def _measured_samples(dataset: Dataset, samples: pa.Table, marks: Mapping[str, TableRef]) -> pa.Table:
    """Samples with what was measured of them, columns as in `schema.CHECKED`."""
    for field in MARKS:
        values = pa.nulls(samples.num_rows, field.type)
        if field.name in marks:
            table = dataset.table(marks[field.name])
            values = table["value"].take(pc.index_in(samples["id"], value_set=table["id"]))
        samples = samples.append_column(field, values)
    return samples


def _as_their_pictures(band: Band, owners: pa.ChunkedArray, beyond: pa.Table) -> Band:
    """Captions of a picture that does not go on do not either."""
    place = pc.index_in(owners, value_set=beyond["id"]).combine_chunks()
    lost, outcome = pc.is_valid(place), beyond["outcome"].combine_chunks().take(place)
    return Band(
        outcome=pc.if_else(lost, outcome, band.outcome),
        code=pc.if_else(lost, pc.binary_join_element_wise("sample", outcome, "_"), band.code),
        bound=pc.if_else(lost, pa.scalar(None, pa.float64()), band.bound),
    )


def printed_text(scores: pa.Table, drop: float | None) -> pa.ChunkedArray:
    """Whether a caption's score falls by more than `drop` when the picture is mirrored; null where it was not.

    Whoever reads the words in a picture scores them with their text, whatever
    else is in it; mirrored, they cannot be read.
    """
    if drop is None:
        return pa.chunked_array([pa.nulls(scores.num_rows, pa.bool_())])
    return pc.greater(pc.subtract(scores["score"], scores["mirrored_score"]), pa.scalar(drop, pa.float32()))


def _best_of_all(scores: pa.Table) -> list[float]:
    """Sum and number of best scores over every sample that was scored, whatever its band."""
    valid = scores.filter(pc.and_(pc.is_valid(scores["score"]), pc.invert(pc.is_nan(scores["score"]))))
    best = valid.group_by("id").aggregate([("score", "max")])["score_max"]
    return [float(pc.sum(pc.cast(best, pa.float64())).as_py() or 0.0), float(len(best))]


def _judged(captions: pa.Table, scores: pa.Table, band: Band) -> pa.Table:
    columns = [captions[name] if name in CAPTIONS.names else scores[name] for name in JUDGED_CAPTIONS.names]
    return pa.table(columns, schema=JUDGED_CAPTIONS).filter(pc.equal(band.outcome, ACCEPTED))


def _caption_rejects(captions: pa.Table, scores: pa.Table, band: Band) -> pa.Table:
    mask = pc.not_equal(band.outcome, ACCEPTED)
    rows = captions.filter(mask)
    return filled(
        CAPTION_REJECTS,
        rows.num_rows,
        **{name: rows[name] for name in CAPTIONS.names},
        outcome=band.outcome.filter(mask),
        code=band.code.filter(mask),
        value=_measured(scores["score"]).filter(mask),
        bound=band.bound.filter(mask),
    )


def _measured(scores: pa.ChunkedArray) -> pa.ChunkedArray:
    """Scores as values of a report: NaN is not a measurement."""
    return pc.if_else(pc.is_nan(scores), pa.scalar(None, pa.float64()), pc.cast(scores, pa.float64()))


_WORST_TO_BEST = [REJECTED, FAILED, HELD, ACCEPTED]


def _samples(
    samples: pa.Table, scores: pa.ChunkedArray, owners: pa.ChunkedArray, band: Band
) -> tuple[pa.Table, pa.Table]:
    """Samples by the best band of their captions, and within it by the best score."""
    standing = pc.index_in(band.outcome, value_set=pa.array(_WORST_TO_BEST))
    rows = pa.table(
        {"id": owners, "standing": standing, "score": _measured(scores), "code": band.code, "bound": band.bound}
    )
    best_first = [("standing", "descending"), ("score", "descending"), ("code", "ascending")]
    rows = rows.sort_by(best_first)
    first = pc.index_in(samples["id"], value_set=rows["id"])
    best = rows.take(first)
    accepted = pc.equal(best["standing"], _WORST_TO_BEST.index(ACCEPTED))
    kept = samples.filter(accepted)
    score = pc.cast(best["score"].filter(accepted), pa.float32())
    kept = kept.append_column("best_score", score).select(CHECKED.names).cast(CHECKED)
    lost, why = samples.filter(pc.invert(accepted)), best.filter(pc.invert(accepted))
    rejects = filled(
        REJECTS,
        lost.num_rows,
        id=lost["id"],
        key=lost["key"],
        outcome=pa.array(_WORST_TO_BEST).take(why["standing"]),
        code=why["code"],
        value=why["score"],
        bound=why["bound"],
        retryable=False,
    )
    return kept, rejects
