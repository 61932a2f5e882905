"""What an exported sample says of itself: one row a sample, its captions in a list."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.schema import CAPTIONS, CHECKED

CAPTION = pa.struct(
    [
        ("text", pa.string()),
        ("lang", pa.string()),
        ("origin", pa.string()),
        ("score", pa.float32()),
        ("model", pa.string()),
        ("printed_text", pa.bool_()),
    ]
)
"""A caption with its CLIPScore, the model that gave it, and whether it may be printed in the picture."""

_FROM_SAMPLES = ["id", "key", "sha256", "url", "license", "extra", "source", "width", "height", "phash"]
SAMPLE_COLUMNS = [*_FROM_SAMPLES, "best_score"]
"""What the export reads of `schema.CHECKED`."""
CAPTION_COLUMNS = [*CAPTIONS.names, "score", "model", "printed_text"]
"""What the export reads of `schema.JUDGED_CAPTIONS`."""

ROWS = pa.schema(
    [
        *[CHECKED.field(name) for name in SAMPLE_COLUMNS],
        pa.field("caption", pa.string(), metadata={"note": "the best caption by score; ties: the first"}),
        pa.field("captions", pa.list_(CAPTION), metadata={"note": "all of them, in their order"}),
    ]
)


def with_captions(samples: pa.Table, captions: pa.Table) -> pa.Table:
    """Samples (n rows of `SAMPLE_COLUMNS`) with their captions: a table of `ROWS`, in their order.

    `captions` has `CAPTION_COLUMNS`; those of other samples are left out, and a
    sample's own keep their order.
    """
    place = pc.index_in(captions["id"], value_set=samples["id"])
    ours = pc.is_valid(place)
    position = place.filter(ours).to_numpy()
    order = np.argsort(position, kind="stable")
    captions, position = captions.filter(ours).take(pa.array(order)), position[order]
    offsets = np.searchsorted(position, np.arange(samples.num_rows + 1)).astype(np.int32)
    best = _best(captions, position, offsets)
    columns = [samples[name] for name in _FROM_SAMPLES]
    # Its best caption may be one that the export leaves out.
    score = pc.coalesce(best["score"], samples["best_score"])
    return pa.table([*columns, score, best["text"], _lists(captions, offsets)], schema=ROWS)


def _lists(captions: pa.Table, offsets: np.ndarray) -> pa.Array:
    columns = [_whole(captions[field.name]) for field in CAPTION]
    return pa.ListArray.from_arrays(
        pa.array(offsets),
        pa.StructArray.from_arrays(columns, fields=list(CAPTION)),
        type=ROWS.field("captions").type,
    )


def _best(captions: pa.Table, position: np.ndarray, offsets: np.ndarray) -> pa.Table:
    """Text and score of each sample's caption of the highest score; unscored ones come last."""
    score = np.nan_to_num(captions["score"].to_numpy().astype(np.float32), nan=-np.inf)
    ranked = np.lexsort((np.arange(len(score)), -score, position))
    first = np.append(ranked, -1)[offsets[:-1]]
    without = offsets[1:] == offsets[:-1]
    return captions.select(["text", "score"]).take(pa.array(first, mask=without)).combine_chunks()


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def row_digests(rows: pa.Table) -> pa.Array:
    """16 bytes a row (n rows of `ROWS`) that change when anything exported of it changes."""
    captions = rows["captions"].combine_chunks()
    fields = captions.flatten()
    spoken = pa.ListArray.from_arrays(
        _rebased(captions), _framed([fields.field(index) for index in range(len(CAPTION))])
    )
    framed = _framed([rows[name].combine_chunks() for name in _FROM_SAMPLES])
    joined = pc.binary_join_element_wise(framed, pc.binary_join(spoken, ""), "")
    return pa.array([sha256(text.encode()).digest()[:16] for text in joined.to_pylist()], pa.binary(16))


def _rebased(lists: pa.Array) -> pa.Array:
    return pc.subtract(lists.offsets, lists.offsets[0])


def _framed(columns: list[pa.Array]) -> pa.Array:
    """Columns joined into one string a row, each value behind its length, so that none can pose as two."""
    return pc.binary_join_element_wise(*[_with_length(column) for column in columns], "")


def _with_length(column: pa.Array) -> pa.Array:
    text = column.cast(pa.string())
    length = pc.binary_length(text).cast(pa.string())
    return pc.fill_null(pc.binary_join_element_wise(length, text, ":"), "-")
