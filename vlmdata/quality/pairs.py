"""How well captions match, for each pair of languages: image and caption, and caption and caption.

The first pass over the shards reads scores, and no vectors: it counts, and
draws a sample by the ids of images, so that it is the same however shards were
cut. The second reads the vectors of what was drawn.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import QualityConfig
from vlmdata.errors import BrokenInvariant
from vlmdata.layout import Step
from vlmdata.measure.encoder import load_encoder
from vlmdata.models.calibration import FEWEST, auc
from vlmdata.quality.drawing import Draw, one_each, places
from vlmdata.quality.embeddings import caption_vectors, column_vectors, image_vectors, text_tables, vector_column
from vlmdata.quality.judges import Judge, Judges, judges
from vlmdata.quality.matching import Matched, said_of

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
        _field("mean", pa.float64(), "mean cosine of all n, of caption-caption of those drawn; null: there are none"),
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
"""Most pairs of a row whose vectors are looked at."""
AT_ONCE = 8
"""Rows whose sampled vectors are in memory together, in float16."""
# Sums of whole billionths are the same in whichever order shards are added.
_BILLION = 1_000_000_000
_KEY = ["language", "model"]
_SUMS = ["n", "billionths", *OUTCOMES]
_Pair = tuple[str, str]


def measure_pairs(dataset: Dataset, shards: Sequence[Shard], config: QualityConfig) -> pa.Table:
    """Rows of `PAIRS` over shards of 03_quality_checked: a language's images, then its captions in the source language.

    The source language is `config.unlabelled_language`. Captions are compared
    with those of the same images in the source language by their own judge,
    which embeds the drawn source captions if it is not the judge of those too.
    A judge that neither judges the source language nor lists it compares
    nothing: there is no row. Captions that failed count nowhere but as failed.
    The largest pairs come first.

    Raises:
        ConfigError: a judge is not there.
        BrokenInvariant: captions were scored, and their embeddings are not there.
    """
    bench, found = judges(config), _Found()
    for shard in shards:
        _read(_scores(dataset, shard), bench, found)
    samples = {
        pair: sample
        for drawn in _batches(found.draws)
        for pair, sample in _samples(dataset, shards, bench, drawn, config.device).items()
    }
    rows = [*_image_rows(found, bench, samples), *_caption_rows(found, bench, samples)]
    table = pa.Table.from_pylist(rows, schema=PAIRS)
    return table.sort_by([("pair", "descending"), ("n", "descending"), ("language", "ascending")])


@dataclass
class _Found:
    """What the first pass finds: sums of captions by `_KEY`; of each pair how many were there, and who is drawn."""

    sums: pa.Table | None = None
    offered: Counter[_Pair] = field(default_factory=Counter)
    draws: dict[_Pair, Draw] = field(default_factory=dict)

    def add(self, rows: pa.Table) -> None:
        """Add rows of `_KEY` and `_SUMS`, so that there is one a language and not one a shard."""
        both = rows if self.sums is None else pa.concat_tables([self.sums, rows])
        added = both.group_by(_KEY).aggregate([(name, "sum") for name in _SUMS])
        added = added.select([*_KEY, *(f"{name}_sum" for name in _SUMS)])
        self.sums = added.rename_columns([*_KEY, *_SUMS])

    def draw(self, kind: str, rows: pa.Table) -> None:
        """Let rows, one for each image and language, take part in their language's draw."""
        for language in pc.unique(rows["language"]).to_pylist():
            pair, mine = (kind, language), rows.filter(pc.equal(rows["language"], language))
            self.offered[pair] += mine.num_rows
            self.draws.setdefault(pair, Draw(SAMPLE)).offer(mine)


def _scores(dataset: Dataset, shard: Shard) -> pa.Table:
    """Columns of `schema.SCORES`, each caption's outcome, and its image's shard and place in a draw."""
    rows = dataset.read(shard, Step.SCORES, "scores", ["id", "caption_id", "score", "model", "language"])
    rejects = dataset.read(shard, Step.CHECKED, "caption_rejects", ["caption_id", "outcome"])
    outcome = rejects["outcome"].take(pc.index_in(rows["caption_id"], value_set=rejects["caption_id"]))
    rows = rows.append_column("outcome", pc.fill_null(outcome, "accepted"))
    rows = rows.append_column("place", places(rows["id"].to_pylist()))
    return rows.append_column("shard", pa.repeat(pa.scalar(shard.name), rows.num_rows))


def _read(rows: pa.Table, bench: Judges, found: _Found) -> None:
    """Add what one shard says, from `_scores`."""
    found.add(_counted(rows))
    asked = _models(rows["language"], bench)
    judged = pc.and_(pc.equal(rows["model"], asked), pc.is_finite(rows["score"]))
    found.draw(IMAGE_CAPTION, one_each(rows.filter(judged), "id", "language"))
    # Where nobody judges the source language, another language's judge may know it all the same.
    comparable = pc.or_kleene(judged, pc.is_null(asked))
    source = rows.filter(pc.and_(pc.equal(rows["language"], bench.unlabelled), comparable))
    found.draw(CAPTION_CAPTION, _with_source(rows.filter(judged), one_each(source, "id"), bench))


def _models(languages: pa.ChunkedArray, bench: Judges) -> pa.Array:
    """The identity of each caption's judge; null where there is none."""
    encoded = pc.dictionary_encode(languages.combine_chunks())
    identities = [judge.identity if (judge := bench.of(tag)) else None for tag in encoded.dictionary.to_pylist()]
    return pa.array(identities, pa.string()).take(encoded.indices)


def _counted(rows: pa.Table) -> pa.Table:
    """Captions as rows of `_KEY` and `_SUMS`, not added up yet."""
    score = rows["score"].to_numpy().astype(np.float32)
    scored = np.isfinite(score)
    known = np.where(scored, score, np.float32(0)).astype(np.float64)
    columns: dict[str, Any] = {
        "language": rows["language"],
        "model": rows["model"],
        "n": pa.array(scored.astype(np.int64)),
        "billionths": pa.array(np.rint(known * _BILLION).astype(np.int64)),
    }
    return pa.table({**columns, **{name: pc.cast(pc.equal(rows["outcome"], name), pa.int64()) for name in OUTCOMES}})


def _with_source(judged: pa.Table, source: pa.Table, bench: Judges) -> pa.Table:
    """One caption for each image and other language, with `source_id`: the image's own in the source language."""
    spoken = [tag for tag in pc.unique(judged["language"]).to_pylist() if tag != bench.unlabelled]
    known = [tag for tag in spoken if _judges_source(tag, bench) or bench.unlabelled in _judge(tag, bench).languages]
    rows = judged.filter(pc.is_in(judged["language"], value_set=pa.array(known, pa.string())))
    rows = one_each(rows, "id", "language")
    at = pc.index_in(rows["id"], value_set=source["id"])
    return rows.append_column("source_id", source["caption_id"].take(at)).filter(pc.is_valid(at))


def _judge(language: str, bench: Judges) -> Judge:
    """Who judged captions in a language."""
    judge = bench.of(language)
    if judge is None:
        raise BrokenInvariant(f"captions in {language} were drawn, and nobody judges them")
    return judge


def _judges_source(language: str, bench: Judges) -> bool:
    """Whether a language's judge is also that of the source language, and so has embedded the captions in both."""
    source = bench.of(bench.unlabelled)
    return source is not None and source.identity == _judge(language, bench).identity


def _batches(draws: Mapping[_Pair, Draw]) -> Iterator[dict[_Pair, pa.Table]]:
    """What was drawn, so much together as memory is for."""
    pairs = sorted(draws)
    for start in range(0, len(pairs), AT_ONCE):
        yield {pair: draws[pair].rows() for pair in pairs[start : start + AT_ONCE]}


@dataclass(frozen=True)
class _Sample:
    """What was measured on the drawn pairs; None where too few were drawn to tell."""

    drawn: int = 0
    mean: float | None = None
    auc: float | None = None


def _samples(
    dataset: Dataset, shards: Sequence[Shard], bench: Judges, drawn: Mapping[_Pair, pa.Table], device: str
) -> dict[_Pair, _Sample]:
    """The second pass, for some of the pairs."""
    parts: dict[_Pair, list[pa.Table]] = defaultdict(list)
    for shard in shards:
        mine = {pair: rows.filter(pc.equal(rows["shard"], shard.name)) for pair, rows in drawn.items()}
        mine = {pair: rows for pair, rows in mine.items() if rows.num_rows}
        for pair, rows in _looked_up(dataset, shard, bench, mine, device) if mine else ():
            parts[pair].append(rows)
    reader = _Reader(device)
    return {pair: _sample(_matched(found, _judge(pair[1], bench), reader)) for pair, found in parts.items()}


def _looked_up(
    dataset: Dataset, shard: Shard, bench: Judges, drawn: Mapping[_Pair, pa.Table], device: str
) -> Iterator[tuple[_Pair, pa.Table]]:
    """What was drawn of one shard, with words and vectors; no `right` where the judge has not embedded that yet."""
    captions = dataset.read(shard, Step.CAPTIONED, "captions", ["id", "caption_id", "text"])
    texts = text_tables(dataset, shard)
    for (kind, language), rows in drawn.items():
        if kind == IMAGE_CAPTION:
            right = rows["caption_id"]
            vectors = {"left": image_vectors(dataset, shard, _judge(language, bench), rows["id"], device)}
        else:
            right = rows["source_id"]
            vectors = {"left": caption_vectors(texts, rows["caption_id"], shard)}
        if kind == IMAGE_CAPTION or _judges_source(language, bench):
            vectors["right"] = caption_vectors(texts, right, shard)
        columns = {
            "place": rows["place"],
            "id": rows["id"],
            "text": captions["text"].take(pc.index_in(right, value_set=captions["caption_id"])),
            "said": pa.array(map(sorted, said_of(captions, rows["id"].to_pylist())), pa.list_(pa.string())),
        }
        found = {side: vector_column(embeddings) for side, embeddings in vectors.items()}
        yield (kind, language), pa.table({**columns, **found})


class _Reader:
    """Texts as their judges embed them, each once a model."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._known: dict[str, dict[str, Vectors]] = defaultdict(dict)

    def vectors(self, judge: Judge, texts: Sequence[str]) -> Vectors:
        """Embeddings (n, dim), rounded as a checkpoint rounds them."""
        known = self._known[judge.identity]
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            column = vector_column(load_encoder(judge.model, judge.pretrained, self._device).texts(new))
            known.update(zip(new, column_vectors(pa.chunked_array([column])), strict=True))
        return np.stack([known[text] for text in texts])


def _matched(parts: Sequence[pa.Table], judge: Judge, reader: _Reader) -> Matched:
    """All that was drawn of one pair, in the order of drawing."""
    rows = pa.concat_tables(parts).sort_by([("place", "ascending"), ("id", "ascending")])
    wording = rows["text"].to_pylist()
    right = column_vectors(rows["right"]) if "right" in rows.column_names else reader.vectors(judge, wording)
    return Matched(column_vectors(rows["left"]), right, wording, [frozenset(said) for said in rows["said"].to_pylist()])


def _sample(pairs: Matched) -> _Sample:
    # A vector that a model could not make is no measurement.
    matched, shuffled = (scores[np.isfinite(scores)] for scores in pairs.scores())
    return _Sample(
        drawn=len(matched),
        mean=float(matched.mean(dtype=np.float64)) if len(matched) else None,
        auc=auc(matched, shuffled) if min(len(matched), len(shuffled)) >= FEWEST else None,
    )


def _image_rows(found: _Found, bench: Judges, samples: Mapping[_Pair, _Sample]) -> Iterator[dict[str, Any]]:
    """Rows of `PAIRS`, one for each language and the model that scored it: the mean is that of all that was scored."""
    for sums in [] if found.sums is None else found.sums.to_pylist():
        judge, sample = bench.of(sums["language"]), samples.get((IMAGE_CAPTION, sums["language"]))
        drawn = sample if sample and judge and judge.identity == sums["model"] else _Sample()
        mean = sums["billionths"] / _BILLION / sums["n"] if sums["n"] else None
        yield {**sums, **asdict(drawn), "pair": IMAGE_CAPTION, "mean": mean}


def _caption_rows(found: _Found, bench: Judges, samples: Mapping[_Pair, _Sample]) -> Iterator[dict[str, Any]]:
    """Rows of `PAIRS`, one for each language whose captions were compared with those in the source language."""
    for (kind, language), sample in samples.items():
        if kind == CAPTION_CAPTION:
            yield {
                **asdict(sample),
                "pair": kind,
                "language": language,
                "source_language": bench.unlabelled,
                "model": _judge(language, bench).identity,
                "n": found.offered[kind, language],
            }
