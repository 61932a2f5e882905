"""What a card says of an export, counted shard by shard: licences, languages, origins, models, and what a mix left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.export.mix import is_synthetic, word_counts
from vlmdata.export.pixels import Picture

TALLIES = pa.schema(
    [
        pa.field("what", pa.string(), nullable=False, metadata={"note": "license, language, …"}),
        pa.field("value", pa.string(), metadata={"note": "null: not stated"}),
        pa.field("count", pa.int64(), nullable=False, metadata={"note": "samples or captions"}),
    ]
)

PASSED_THROUGH = "passed_through"
"""A picture whose compressed stream is its source's own."""

Tallies = dict[str, Counter[str | None]]


def tally(rows: pa.Table, pictures: Sequence[Picture] = (), left_out: pa.Table | None = None) -> pa.Table:
    """Count the exported rows (`rows.ROWS`) and their pictures: a table of `TALLIES`.

    `picture` counts what happened to pixels: a picture under each of its changes, or under `passed_through`.
    With `left_out`, the rejects of `mix.mixed`, also what the mix came to: `words` (captions of
    so many), `drawn` (samples of both kinds, by the kind exported) and `left_out` (captions, by code).
    """
    captions = pc.list_flatten(rows["captions"])
    origin = pc.replace_substring_regex(pc.struct_field(captions, "origin"), "^duplicate:.*$", "duplicate")
    model = pc.struct_field(captions, "model")
    by_starter = pc.and_(_is_starter(pc.replace_substring_regex(origin, "^model:", "")), _is_starter(model))
    fates = [fate for picture in pictures for fate in picture.changes or (PASSED_THROUGH,)]
    counted = [
        counts("license", rows["license"]),
        counts("language", pc.struct_field(captions, "lang")),
        counts("origin", origin),
        counts("model", model),
        counts("starter", origin.filter(by_starter)),
        counts("picture", pa.array(fates, pa.string())),
    ]
    return pa.concat_tables(counted if left_out is None else [*counted, *_mixed(captions, left_out)])


def _mixed(captions: pa.ChunkedArray, left_out: pa.Table) -> list[pa.Table]:
    by_draw = left_out.filter(pc.equal(left_out["code"], "mix"))
    lost = pa.table({"id": by_draw["id"], "synthetic": is_synthetic(by_draw["origin"])})
    lost = lost.group_by(["id", "synthetic"]).aggregate([])
    return [
        counts("words", pc.cast(word_counts(pc.struct_field(captions, "text")), pa.string())),
        counts("drawn", pc.if_else(lost["synthetic"], "original", "synthetic")),
        counts("left_out", left_out["code"]),
    ]


def _is_starter(names: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.match_substring_regex(names, r"^starter\b"), False)


def counts(what: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Rows of `TALLIES`: how often each value occurs, the most frequent first."""
    found = pc.value_counts(values)
    table = pa.table([found.field("values"), found.field("counts")], names=["value", "count"])
    table = table.sort_by([("count", "descending"), ("value", "ascending")])
    return pa.table([pa.repeat(what, table.num_rows), table["value"], table["count"]], schema=TALLIES)


def added_up(tables: Iterable[pa.Table]) -> Tallies:
    """The tallies of several shards as one, by `what`."""
    total: Tallies = {}
    for table in tables:
        for row in table.to_pylist():
            total.setdefault(row["what"], Counter())[row["value"]] += row["count"]
    return total


def quantile(counts: Counter[str | None], share: float) -> int | None:
    """The least number that `share` of all counted are not above (nearest rank); none if nothing is counted."""
    rank = share * counts.total()
    numbers = sorted((int(value), count) for value, count in counts.items() if value is not None)
    reached = 0
    for number, count in numbers:
        reached += count
        if reached >= rank:
            return number
    return None
