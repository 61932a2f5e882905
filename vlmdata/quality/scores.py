"""CLIPScore of every caption, each with the model, preprocessing, language and precision it was taken with.

CLIPScore here is the cosine of the L2-normalised image and text embedding,
without the factor 2.5 of Hessel et al. (arXiv 2104.08718), so that LAION's
0.28 means what it meant there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, TableRef, run_once
from vlmdata.config import QualityConfig
from vlmdata.layout import Step
from vlmdata.measure.encoder import load_encoder
from vlmdata.quality.embeddings import TEXTS, column_vectors, embed_both_ways, embed_shard, vector_column
from vlmdata.quality.judges import Judge, Judges, judges
from vlmdata.quality.languages import Told, tell
from vlmdata.quality.scorers import measure_marks
from vlmdata.schema import SCORES, filled

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Seen:
    """A shard's pictures as a judge sees them; mirrored only if that was asked for."""

    judge: Judge
    plain: Manifest
    mirrored: Manifest | None

    @property
    def tables(self) -> list[TableRef]:
        return [one.tables["images"] for one in (self.plain, self.mirrored) if one]


def score_shard(dataset: Dataset, shard: Shard, config: QualityConfig) -> Shard:
    """Embed and score a shard: table `scores` (`schema.SCORES`), a row a caption, in the captions' order.

    Captions in a language that no judge knows have a null score. Table
    `texts/<n>` holds the text embeddings of the n-th judge. The scorers that
    the config names measure the pictures here as well, for `judge_shard`.
    """
    measure_marks(dataset, shard, config)
    bench = judges(config)
    given = dataset.read(shard, Step.CAPTIONED, "captions", ["lang", "text"])
    told = tell(given["lang"].to_pylist(), given["text"].to_pylist(), bench.unlabelled)
    spoken = [one.language for one in told]
    seen = [_seen(dataset, shard, judge, config) for judge in _needed(bench, spoken)]

    reads = [dataset.digest(shard, Step.CAPTIONED, "captions", ["id", "caption_id", "text", "lang"])]
    reads += [table.digest(["id", "embedding"]) for one in seen for table in one.tables]
    judged_by = {language: judge.identity if (judge := bench.of(language)) else None for language in set(spoken)}
    judged = [judged_by[language] for language in spoken]
    settings = {
        "languages": judged_by,
        "unlabelled": bench.unlabelled,
        "mirrored": config.printed_text_drop is not None,
    }

    def work(_: Manifest | None) -> Result:
        captions = dataset.read(shard, Step.CAPTIONED, "captions")
        parts = [_unscored(captions, spoken, [identity is None for identity in judged])]
        tables = {}
        for number, one in enumerate(seen):
            mine = [identity == one.judge.identity for identity in judged]
            scored, texts = _scored(dataset, captions, spoken, mine, one, config.device)
            parts.append(scored)
            tables[f"{TEXTS}{number}"] = texts
        order = pc.index_in(captions["caption_id"], value_set=(joined := pa.concat_tables(parts))["caption_id"])
        scores = _with_languages(joined.take(order), told)
        counts = Counts(came=scores.num_rows, kept=scores.num_rows)
        cut = pc.sum(scores["truncated"]).as_py() or 0
        return Result({"scores": scores, **tables}, captions=counts, facts={"truncated": cut})

    return run_once(dataset, shard, Step.SCORES, reads, settings, work)


def _seen(dataset: Dataset, shard: Shard, judge: Judge, config: QualityConfig) -> _Seen:
    if config.printed_text_drop is None:
        return _Seen(judge, embed_shard(dataset, shard, judge, config.device), None)
    return _Seen(judge, *embed_both_ways(dataset, shard, judge, config.device))


def _with_languages(scores: pa.Table, told: Sequence[Told]) -> pa.Table:
    columns = {name: scores[name] for name in scores.column_names}
    columns["identified"] = pa.array([one.identified for one in told], pa.string())
    columns["contradicted"] = pa.array([one.contradicted for one in told], pa.bool_())
    return filled(SCORES, scores.num_rows, **columns)


def _needed(bench: Judges, spoken: Sequence[str]) -> list[Judge]:
    """The judges that have something to do, in a stable order."""
    asked = {judge.identity: judge for language in set(spoken) if (judge := bench.of(language))}
    return [asked[identity] for identity in sorted(asked)]


def _unscored(captions: pa.Table, spoken: Sequence[str], mask: Sequence[bool]) -> pa.Table:
    rows = captions.filter(pa.array(mask, pa.bool_()))
    language = pa.array(spoken, pa.string()).filter(pa.array(mask, pa.bool_()))
    return filled(SCORES, rows.num_rows, id=rows["id"], caption_id=rows["caption_id"], language=language)


def _scored(
    dataset: Dataset, captions: pa.Table, spoken: Sequence[str], mask: Sequence[bool], seen: _Seen, device: str
) -> tuple[pa.Table, pa.Table]:
    """Rows of `schema.SCORES` for one judge's captions, and their text embeddings."""
    encoder = load_encoder(seen.judge.model, seen.judge.pretrained, device)
    mine = pa.array(mask, pa.bool_())
    rows = captions.filter(mine)
    distinct = rows["text"].combine_chunks().dictionary_encode()
    unique_texts = distinct.dictionary.to_pylist()
    tokens = encoder.token_counts(unique_texts)[distinct.indices.to_numpy()]
    texts_column = vector_column(encoder.texts(unique_texts)[distinct.indices.to_numpy()])
    texts = column_vectors(pa.chunked_array([texts_column]))
    scores = [pa.array(cosine(_of_rows(dataset.table(table), rows["id"]), texts)) for table in seen.tables]
    table = filled(
        SCORES,
        rows.num_rows,
        id=rows["id"],
        caption_id=rows["caption_id"],
        score=scores[0],
        mirrored_score=scores[1] if seen.mirrored else None,
        model=seen.judge.identity,
        weights=encoder.weights,
        preprocessing=seen.plain.facts["preprocessing"],
        precision=seen.plain.facts["precision"],
        language=pa.array(spoken, pa.string()).filter(mine),
        tokens=pa.array(tokens),
        truncated=pa.array(tokens > encoder.context_length),
    )
    return table, pa.table({"caption_id": rows["caption_id"], "embedding": texts_column})


def _of_rows(pictures: pa.Table, ids: pa.ChunkedArray) -> Scores:
    """The vectors (n, d) of the pictures that captions belong to."""
    vectors: Scores = column_vectors(pictures["embedding"])[pc.index_in(ids, value_set=pictures["id"]).to_numpy()]
    return vectors


def cosine(images: Scores, texts: Scores) -> Scores:
    """Row-wise cosine of L2-normalised vectors (n, d) and (n, d): float32 (n), summed in float64."""
    products = images.astype(np.float64) * texts.astype(np.float64)
    norms = np.linalg.norm(images.astype(np.float64), axis=1) * np.linalg.norm(texts.astype(np.float64), axis=1)
    # A vector of zeros has no direction: NaN, as for a picture that was not embedded.
    with np.errstate(invalid="ignore"):
        result: Scores = (products.sum(axis=1) / norms).astype(np.float32)
    return result
