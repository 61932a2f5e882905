"""How well captions match, for each pair of languages: image and caption, and caption and caption.

Counts and means are over everything that was scored; the AUC rests on a
sample, drawn by the ids of images, so that it is the same however shards were
cut. Vectors are read from the checkpoints a shard at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import QualityConfig
from vlmdata.errors import BrokenInvariant
from vlmdata.layout import Step
from vlmdata.models.calibration import FEWEST, auc
from vlmdata.quality.drawing import Draw, one_each, places
from vlmdata.quality.embeddings import caption_vectors, image_vectors, text_tables
from vlmdata.quality.judges import Judge, Judges, judges
from vlmdata.quality.matching import Matched, said_of
from vlmdata.quality.scores import cosine

Vectors = npt.NDArray[np.float32]

IMAGE_CAPTION, CAPTION_CAPTION = "image-caption", "caption-caption"
OUTCOMES = ("accepted", "held", "rejected", "failed")


def _field(name: str, type_: pa.DataType, note: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"note": note})


PAIRS = pa.schema(
    [
        _field("pair", pa.string(), "image-caption | caption-caption", nullable=False),
        _field("language", pa.string(), "the language that the captions were scored in", nullable=False),
        _field("source_language", pa.string(), "of the same image's other caption; null: the pair is with the image"),
        _field("model", pa.string(), "model identity; null: no model judges this language"),
        _field("n", pa.int64(), "scored captions; of caption-caption, images with a caption in both", nullable=False),
        _field("mean", pa.float64(), "mean cosine; null: nothing was scored"),
        _field("auc", pa.float64(), f"chance that a pair outscores a shuffled one; null: fewer than {FEWEST} of both"),
        _field("drawn", pa.int64(), "pairs that the AUC rests on, one an image", nullable=False),
        *(
            _field(name, pa.int64(), f"captions of this language that were {name}; null: of caption-caption")
            for name in OUTCOMES
        ),
    ]
)
"""One row a pair: images with the captions in a language, and these with captions in the source language."""

SAMPLE = 5_000
"""Most pairs that an AUC rests on."""
AT_ONCE = 40_000
"""Pairs whose vectors are in memory together, in float16."""
# Sums of whole billionths are the same in whichever order shards are added.
_BILLION = 1_000_000_000
_KEY = ["pair", "language", "model"]
_SUMS = ["n", "billionths", *OUTCOMES]
_Pair = tuple[str, str]


def measure_pairs(dataset: Dataset, shards: Sequence[Shard], config: QualityConfig) -> pa.Table:
    """Rows of `PAIRS` over shards of 03_quality_checked: a language's images, then its captions in the source language.

    The source language is `config.unlabelled_language`. Two captions are
    compared only where one model embedded both. The largest pairs come first.

    Raises:
        ConfigError: a judge is not there.
        BrokenInvariant: captions were scored, and their embeddings are not there.
    """
    bench, found = judges(config), _Found()
    for shard in shards:
        _read(_Checkpoint(dataset, shard, config.device), bench, found)
    areas = {
        pair: area
        for some in _batches(found.draws)
        for pair, area in _areas(dataset, shards, bench, some, config.device).items()
    }
    rows = found.sums.to_pylist() if found.sums is not None else []
    table = pa.Table.from_pylist([_row(row, bench, found, areas) for row in rows], schema=PAIRS)
    return table.sort_by([("pair", "descending"), ("n", "descending"), ("language", "ascending")])


@dataclass
class _Found:
    """What is known after every shard was read once: sums by `_KEY`, and what was drawn of each pair."""

    sums: pa.Table | None = None
    draws: dict[_Pair, Draw] = field(default_factory=dict)

    def add(self, rows: pa.Table) -> None:
        """Add rows of `_KEY` and `_SUMS`, so that there is one a pair and not one a shard."""
        both = rows if self.sums is None else pa.concat_tables([self.sums, rows])
        added = both.group_by(_KEY).aggregate([(name, "sum") for name in _SUMS])
        added = added.select([*_KEY, *(f"{name}_sum" for name in _SUMS)])
        self.sums = added.rename_columns([*_KEY, *_SUMS])

    def draw(self, pair: str, rows: pa.Table) -> None:
        """Let rows, one for each image and language, take part in their language's draw."""
        for language in pc.unique(rows["language"]).to_pylist():
            draw = self.draws.setdefault((pair, language), Draw(SAMPLE))
            draw.offer(rows.filter(pc.equal(rows["language"], language)))


class _Checkpoint:
    """What stages 02 and 03 left of one shard, read when it is asked for."""

    def __init__(self, dataset: Dataset, shard: Shard, device: str) -> None:
        self.dataset, self.shard, self._device = dataset, shard, device

    @cached_property
    def captions(self) -> pa.Table:
        """Ids and words of all captions."""
        return self.dataset.read(self.shard, Step.CAPTIONED, "captions", ["id", "caption_id", "text"])

    def scores(self) -> pa.Table:
        """Columns of `schema.SCORES`, each caption's outcome, and its image's place in a draw."""
        wanted = ["id", "caption_id", "score", "model", "language"]
        rows = self.dataset.read(self.shard, Step.SCORES, "scores", wanted)
        rejects = self.dataset.read(self.shard, Step.CHECKED, "caption_rejects", ["caption_id", "outcome"])
        outcome = rejects["outcome"].take(pc.index_in(rows["caption_id"], value_set=rejects["caption_id"]))
        rows = rows.append_column("outcome", pc.fill_null(outcome, "accepted"))
        rows = rows.append_column("place", places(rows["id"].to_pylist()))
        return rows.append_column("shard", pa.repeat(pa.scalar(self.shard.name), rows.num_rows))

    def image_vectors(self, judge: Judge, ids: pa.ChunkedArray) -> Vectors:
        """Embeddings (n, dim) of images."""
        return image_vectors(self.dataset, self.shard, judge, ids, self._device)

    def text_vectors(self, caption_ids: pa.ChunkedArray) -> Vectors:
        """Embeddings (n, dim) of captions that one model scored."""
        return caption_vectors(self._texts, caption_ids, self.shard)

    @cached_property
    def _texts(self) -> list[pa.Table]:
        return text_tables(self.dataset, self.shard)


def _read(checkpoint: _Checkpoint, bench: Judges, found: _Found) -> None:
    """Add what one shard says."""
    rows = checkpoint.scores()
    score = rows["score"].to_numpy().astype(np.float32)
    scored = np.isfinite(score)
    found.add(_summed(IMAGE_CAPTION, rows, score, rows["outcome"]))
    judged = rows.filter(pc.fill_null(pc.equal(rows["model"], _models(rows["language"], bench)), False))
    images = rows.filter(pc.and_(pa.array(scored), pc.is_in(rows["caption_id"], value_set=judged["caption_id"])))
    found.draw(IMAGE_CAPTION, one_each(images, "id", "language"))
    captions = _with_source(judged, bench.unlabelled)
    if captions.num_rows:
        mine, source = (checkpoint.text_vectors(captions[name]) for name in ("caption_id", "source_id"))
        found.add(_summed(CAPTION_CAPTION, captions, cosine(mine, source), None))
        found.draw(CAPTION_CAPTION, captions)


def _models(languages: pa.ChunkedArray, bench: Judges) -> pa.Array:
    """The identity of each caption's judge; null where there is none."""
    encoded = pc.dictionary_encode(languages.combine_chunks())
    identities = [judge.identity if (judge := bench.of(tag)) else None for tag in encoded.dictionary.to_pylist()]
    return pa.array(identities, pa.string()).take(encoded.indices)


def _with_source(judged: pa.Table, source_language: str) -> pa.Table:
    """One caption for each image and other language, with `source_id`: the image's own in the source language."""
    is_source = pc.equal(judged["language"], source_language)
    source = one_each(judged.filter(is_source), "id")
    rows = one_each(judged.filter(pc.invert(is_source)), "id", "language")
    at = pc.index_in(rows["id"], value_set=source["id"])
    same_model = pc.fill_null(pc.equal(source["model"].take(at), rows["model"]), False)
    return rows.append_column("source_id", source["caption_id"].take(at)).filter(same_model)


def _summed(pair: str, rows: pa.Table, cosines: Vectors, outcome: pa.ChunkedArray | None) -> pa.Table:
    """Rows with the columns `_KEY` and `_SUMS`, not added up yet."""
    scored = np.isfinite(cosines)
    known = np.where(scored, cosines, np.float32(0)).astype(np.float64)
    columns: dict[str, Any] = {
        "pair": pa.repeat(pa.scalar(pair), rows.num_rows),
        "language": rows["language"],
        "model": rows["model"],
        "n": pa.array(scored.astype(np.int64)),
        "billionths": pa.array(np.rint(known * _BILLION).astype(np.int64)),
    }
    for name in OUTCOMES:
        counted = None if outcome is None else pc.cast(pc.equal(outcome, name), pa.int64())
        columns[name] = pa.nulls(rows.num_rows, pa.int64()) if counted is None else counted
    return pa.table(columns)


def _batches(draws: dict[_Pair, Draw]) -> Iterator[dict[_Pair, pa.Table]]:
    """What was drawn, so much together as memory is for."""
    batch: dict[_Pair, pa.Table] = {}
    for pair, draw in sorted(draws.items()):
        if batch and sum(rows.num_rows for rows in batch.values()) + len(draw) > AT_ONCE:
            yield batch
            batch = {}
        batch[pair] = draw.rows()
    if batch:
        yield batch


def _areas(
    dataset: Dataset, shards: Sequence[Shard], bench: Judges, drawn: dict[_Pair, pa.Table], device: str
) -> dict[_Pair, float | None]:
    """The AUC of each pair; None where too few were drawn to tell."""
    parts: dict[_Pair, list[tuple[pa.Table, Matched]]] = {pair: [] for pair in drawn}
    for shard in shards:
        checkpoint = _Checkpoint(dataset, shard, device)
        for pair, rows in drawn.items():
            mine = rows.filter(pc.equal(rows["shard"], shard.name))
            if mine.num_rows:
                parts[pair].append((mine, _matched(checkpoint, bench, pair, mine)))
    return {pair: _area(_joined(drawn[pair], found)) for pair, found in parts.items()}


def _matched(checkpoint: _Checkpoint, bench: Judges, pair: _Pair, rows: pa.Table) -> Matched:
    """Vectors, in float16, and words of drawn rows of one shard."""
    kind, language = pair
    judge = bench.of(language)
    if judge is None:
        raise BrokenInvariant(f"captions in {language} were drawn, and nobody judges them")
    right = rows["caption_id"] if kind == IMAGE_CAPTION else rows["source_id"]
    texts = checkpoint.text_vectors(right)
    if kind == IMAGE_CAPTION:
        left = checkpoint.image_vectors(judge, rows["id"])
    else:
        left = checkpoint.text_vectors(rows["caption_id"])
    captions = checkpoint.captions
    wording = captions["text"].take(pc.index_in(right, value_set=captions["caption_id"])).to_pylist()
    said = said_of(captions, rows["id"].to_pylist())
    return Matched(left.astype(np.float16), texts.astype(np.float16), wording, said)


def _joined(drawn: pa.Table, parts: Sequence[tuple[pa.Table, Matched]]) -> Matched:
    """All parts of one pair, in the order of drawing."""
    ids = pa.chunked_array([chunk for rows, _ in parts for chunk in rows["id"].chunks])
    order = pc.index_in(drawn["id"], value_set=ids).to_numpy()
    wording = [text for _, part in parts for text in part.wording]
    said = [texts for _, part in parts for texts in part.said]
    return Matched(
        np.concatenate([part.left for _, part in parts])[order].astype(np.float32),
        np.concatenate([part.right for _, part in parts])[order].astype(np.float32),
        [wording[place] for place in order],
        [said[place] for place in order],
    )


def _area(pairs: Matched) -> float | None:
    matched, shuffled = pairs.scores()
    return auc(matched, shuffled) if min(len(matched), len(shuffled)) >= FEWEST else None


def _row(sums: dict[str, Any], bench: Judges, found: _Found, areas: dict[_Pair, float | None]) -> dict[str, Any]:
    """One row of `PAIRS`."""
    pair = (sums["pair"], sums["language"])
    judge = bench.of(sums["language"])
    judged = judge is not None and judge.identity == sums["model"]
    return {
        **sums,
        "source_language": bench.unlabelled if sums["pair"] == CAPTION_CAPTION else None,
        "mean": sums["billionths"] / _BILLION / sums["n"] if sums["n"] else None,
        "auc": areas.get(pair) if judged else None,
        "drawn": len(found.draws[pair]) if judged and pair in found.draws else 0,
    }
