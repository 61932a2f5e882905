"""Captions that cannot be used are rejected as captions; their pictures are not."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.schema import CAPTION_REJECTS, filled


def judge_captions(captions: pa.Table, max_chars: int) -> tuple[pa.Table, pa.Table]:
    """Split `schema.CAPTIONS` into what stays and rows of `schema.CAPTION_REJECTS`.

    Codes: empty_caption (nothing but white space), caption_too_long (over
    `max_chars` characters), duplicate_caption (the picture has the same text in
    the same language already).
    """
    trimmed = pc.utf8_trim_whitespace(captions["text"])
    length = pc.utf8_length(trimmed)
    empty = pc.equal(length, 0)
    long = pc.greater(length, max_chars)
    repeated = pc.and_not(pc.and_not(_repeats(captions, trimmed), empty), long)
    rejects = [
        captions_rejected(captions, empty, "empty_caption"),
        captions_rejected(captions, long, "caption_too_long", value=length, bound=float(max_chars)),
        captions_rejected(captions, repeated, "duplicate_caption"),
    ]
    bad = pc.or_(pc.or_(empty, long), repeated)
    return captions.filter(pc.invert(bad)), pa.concat_tables(rejects)


def captions_rejected(
    captions: pa.Table,
    mask: pa.ChunkedArray,
    code: str,
    *,
    outcome: str = "rejected",
    value: pa.ChunkedArray | None = None,
    bound: float | None = None,
) -> pa.Table:
    """Rows of `schema.CAPTION_REJECTS` for the captions under a mask, all for one reason."""
    rows = captions.filter(mask)
    return filled(
        CAPTION_REJECTS,
        rows.num_rows,
        **{name: rows[name] for name in captions.column_names},
        outcome=outcome,
        code=code,
        value=None if value is None else value.filter(mask),
        bound=bound,
    )


def _repeats(captions: pa.Table, trimmed: pa.ChunkedArray) -> pa.ChunkedArray:
    """True where an earlier row has the same sample, text and language."""
    rows = pa.table({"id": captions["id"], "text": trimmed, "lang": pc.fill_null(captions["lang"], "")})
    rows = rows.append_column("row", pa.array(range(rows.num_rows), pa.int64()))
    first = rows.group_by(["id", "text", "lang"]).aggregate([("row", "min")])["row_min"]
    return pc.invert(pc.is_in(rows["row"], value_set=first))
