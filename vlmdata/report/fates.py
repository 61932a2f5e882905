"""What became of each sample and caption of one shard, from the tables that its stages left."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.layout import Stage, Step
from vlmdata.measure.language import UNDETERMINED
from vlmdata.provenance import came_from
from vlmdata.schema import CAPTION_REJECTS, FACTS, REJECTS, filled
from vlmdata.schema import SAMPLES as RAW_SAMPLES

_REASON = ["outcome", "code", "value", "bound", "detail", "related"]
_SEEN = ["error", "format", "width", "height", "frames", "orientation", "phash"]

ENDED = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("stage", pa.string(), metadata={"note": "where it ended, or how far all came"}),
        *[REJECTS.field(name).with_nullable(True) for name in _REASON],
    ]
)
"""How samples ended that the export lost."""

SAMPLES = pa.schema(
    [
        *ENDED,
        pa.field("key", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("came_from", pa.string(), metadata={"note": "a host, or a folder of the source"}),
        *[RAW_SAMPLES.field(name) for name in ("url", "license", "bytes")],
        RAW_SAMPLES.field("sha256").with_nullable(True),
        *[FACTS.field(name) for name in _SEEN],
        pa.field("score", pa.float32(), metadata={"note": "best CLIPScore of its captions, whatever their band"}),
    ]
)
"""One row a sample; `outcome` is kept, rejected, held or failed."""

CAPTIONS = pa.schema(
    [
        *[pa.field(name, pa.string()) for name in ("id", "caption_id", "text", "language", "origin")],
        pa.field("owner", pa.string(), metadata={"note": "whose it was, before that picture went as a near-duplicate"}),
        pa.field("stage", pa.string()),
        *[CAPTION_REJECTS.field(name).with_nullable(True) for name in ("outcome", "code", "value", "bound", "detail")],
        pa.field("score", pa.float32()),
        pa.field("model", pa.string()),
    ]
)
"""One row a caption, where it ended."""

ASKED = pa.schema(
    [
        *[pa.field(name, pa.string()) for name in ("id", "failure", "message")],
        pa.field("http_status", pa.int32()),
        pa.field("requests", pa.int32()),
    ]
)
"""Pictures that the captioner said nothing about."""

_GIVEN = r"^duplicate:(?P<id>[^|]+)"
_LONGEST = 4_000
"""Characters of a text that are kept to be searched."""
_LONGEST_NAME = 200
"""Characters of a host or folder."""


def stages_up_to(last: Stage) -> list[Step]:
    """The deciding steps of a run that reached `last`, in order."""
    return [Step(stage.value) for stage in Stage if stage <= last and stage is not Stage.FINAL]


def samples(dataset: Dataset, last: Stage, shard: Shard) -> pa.Table:
    """A table of `SAMPLES`: everything that came in, whatever became of it."""
    came, lost = _came(dataset, shard), _lost(dataset, last, shard)
    reasons = lost.take(pc.index_in(came["id"], value_set=lost["id"]))
    seen = _columns(dataset, shard, Step.FACTS, "facts", ["id", *_SEEN])
    facts = seen.take(pc.index_in(came["id"], value_set=seen["id"]))
    best = _best(dataset, shard)
    told = {
        **{name: came[name] for name in came.column_names},
        **{name: reasons[name] for name in _REASON},
        **{name: facts[name] for name in _SEEN},
        "stage": pc.fill_null(reasons["stage"], last.value),
        "outcome": pc.fill_null(reasons["outcome"], "kept"),
        "shard": pa.repeat(shard.name, came.num_rows),
        "score": best["score"].take(pc.index_in(came["id"], value_set=best["id"])),
    }
    return pa.table([told[field.name].cast(field.type) for field in SAMPLES], schema=SAMPLES)


def _came(dataset: Dataset, shard: Shard) -> pa.Table:
    """What was read, then what could not be."""
    read = dataset.read(shard, Step.RAW, "samples", ["id", "key", "source", "url", "license", "bytes", "sha256"])
    read = read.append_column("came_from", _name(came_from(read))).drop_columns(["source"])
    lost = dataset.read(shard, Step.RAW, "rejects", ["id", "key"])
    lost = lost.filter(pc.invert(pc.is_in(lost["id"], value_set=read["id"])))
    columns = {name: lost[name] for name in lost.column_names}
    plain = pa.schema([(field.name, field.type) for field in read.schema])
    return pa.concat_tables([read.cast(plain), filled(plain, lost.num_rows, **columns)])


def _name(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """What can be filtered by, and so is on the page for each to choose: cut, and seen to be."""
    cut = pc.binary_join_element_wise(pc.utf8_slice_codeunits(texts, 0, _LONGEST_NAME - 1), "…", "")
    return pc.if_else(pc.greater(pc.utf8_length(texts), _LONGEST_NAME), cut, texts)


def _lost(dataset: Dataset, last: Stage, shard: Shard) -> pa.Table:
    """Why samples went no further, with the stage that said so."""
    parts = []
    for step in stages_up_to(last):
        rows = dataset.read(shard, step, "rejects", ["id", *_REASON])
        parts.append(rows.append_column("stage", pa.repeat(step.value, rows.num_rows)))
    return pa.concat_tables(parts)


def _best(dataset: Dataset, shard: Shard) -> pa.Table:
    rows = _columns(dataset, shard, Step.SCORES, "scores", ["id", "score"])
    rows = rows.filter(pc.fill_null(pc.is_finite(rows["score"]), False))
    return rows.group_by("id").aggregate([("score", "max")]).rename_columns(["id", "score"])


_EMPTY = {
    "facts": FACTS,
    "scores": pa.schema(
        [(name, pa.string()) for name in ("id", "caption_id", "model", "language")] + [("score", pa.float32())]
    ),
}


def _columns(dataset: Dataset, shard: Shard, step: Step, table: str, columns: Sequence[str]) -> pa.Table:
    """Columns of a table; none of its rows where the run did not come to that step."""
    if step.value not in shard.manifests:
        return _EMPTY[table].empty_table().select(list(columns))
    return dataset.read(shard, step, table, columns)


def captions(dataset: Dataset, last: Stage, shard: Shard) -> pa.Table:
    """A table of `CAPTIONS`: those that were kept, and all that were not, where they ended."""
    steps = stages_up_to(last)
    parts = [_kept_captions(dataset, steps[-1], shard), *(_lost_captions(dataset, step, shard) for step in steps)]
    rows = pa.concat_tables(parts)
    scores = _columns(dataset, shard, Step.SCORES, "scores", ["caption_id", "score", "model", "language"])
    scores = scores.take(pc.index_in(rows["caption_id"], value_set=scores["caption_id"]))
    finite = pc.fill_null(pc.is_finite(scores["score"]), False)
    given = pc.struct_field(pc.extract_regex(rows["origin"], _GIVEN), "id")
    told = {
        **{name: rows[name] for name in rows.column_names},
        "text": pc.utf8_slice_codeunits(rows["text"], 0, _LONGEST),
        "owner": given,
        "language": _primary(pc.coalesce(scores["language"], rows["lang"])),
        "score": pc.if_else(finite, scores["score"], None),
        "model": scores["model"],
    }
    return pa.table([told[field.name].cast(field.type) for field in CAPTIONS], schema=CAPTIONS)


_OF_CAPTION = ["id", "caption_id", "text", "lang", "origin"]
_FATE = ["outcome", "code", "value", "bound", "detail"]
_LOST = pa.schema(
    [
        *[(name, pa.string()) for name in (*_OF_CAPTION, "outcome", "code")],
        *[(name, pa.float64()) for name in ("value", "bound")],
        ("detail", pa.string()),
    ]
)


def _kept_captions(dataset: Dataset, step: Step, shard: Shard) -> pa.Table:
    rows = dataset.read(shard, step, "captions", _OF_CAPTION)
    kept = filled(_LOST, rows.num_rows, **{name: rows[name] for name in _OF_CAPTION}, outcome="kept")
    return _at(kept, step)


def _lost_captions(dataset: Dataset, step: Step, shard: Shard) -> pa.Table:
    return _at(dataset.read(shard, step, "caption_rejects", [*_OF_CAPTION, *_FATE]).cast(_LOST), step)


def _at(rows: pa.Table, step: Step) -> pa.Table:
    return rows.append_column("stage", pa.repeat(step.value, rows.num_rows))


def _primary(tags: pa.ChunkedArray) -> pa.ChunkedArray:
    """The primary subtag of a declared language."""
    primary = pc.utf8_lower(pc.replace_substring_regex(pc.utf8_slice_codeunits(tags, 0, 35), "(?s)-.*", ""))
    return pc.fill_null(primary, UNDETERMINED)


def asked(dataset: Dataset, shard: Shard) -> pa.Table:
    """A table of `ASKED`."""
    if Step.CAPTIONED.value not in shard.manifests:
        return ASKED.empty_table()
    rows = dataset.read(shard, Step.CAPTIONED, "attempts", ASKED.names)
    return rows.filter(pc.is_valid(rows["failure"])).cast(ASKED)


def exported(dataset: Dataset, shard: Shard) -> pa.Table:
    """A table of `ENDED` for a shard of the export: what it holds was kept to the end, what it lost was not."""
    stage = Stage.FINAL.value
    held = dataset.read(shard, Step.FINAL, "samples", ["id"])
    lost = dataset.read(shard, Step.FINAL, "rejects", ["id", *_REASON])
    kept = filled(ENDED, held.num_rows, id=held["id"], stage=stage, outcome="kept")
    failed = lost.append_column("stage", pa.repeat(stage, lost.num_rows)).select(ENDED.names)
    return pa.concat_tables([kept, failed.cast(ENDED)])
