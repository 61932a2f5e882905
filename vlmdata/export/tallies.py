"""What a card says of an export, counted shard by shard: licences, languages, origins, models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

TALLIES = pa.schema(
    [
        pa.field("what", pa.string(), nullable=False, metadata={"note": "license, language, …"}),
        pa.field("value", pa.string(), metadata={"note": "null: not stated"}),
        pa.field("count", pa.int64(), nullable=False, metadata={"note": "samples or captions"}),
    ]
)

Tallies = dict[str, Counter[str | None]]


def tally(rows: pa.Table) -> pa.Table:
    """Count the exported rows (`rows.ROWS`): a table of `TALLIES`."""
    captions = pc.list_flatten(rows["captions"])
    origin = pc.replace_substring_regex(pc.struct_field(captions, "origin"), "^duplicate:.*$", "duplicate")
    model = pc.struct_field(captions, "model")
    by_starter = pc.and_(_is_starter(pc.replace_substring_regex(origin, "^model:", "")), _is_starter(model))
    counted = [
        _counts("license", rows["license"]),
        _counts("language", pc.struct_field(captions, "lang")),
        _counts("origin", origin),
        _counts("model", model),
        _counts("starter", origin.filter(by_starter)),
    ]
    return pa.concat_tables(counted)


def _is_starter(names: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.match_substring_regex(names, r"^starter\b"), False)


def _counts(what: str, values: pa.ChunkedArray) -> pa.Table:
    counts = pc.value_counts(values)
    table = pa.table([counts.field("values"), counts.field("counts")], names=["value", "count"])
    table = table.sort_by([("count", "descending"), ("value", "ascending")])
    return pa.table([pa.repeat(what, table.num_rows), table["value"], table["count"]], schema=TALLIES)


def added_up(tables: Iterable[pa.Table]) -> Tallies:
    """The tallies of several shards as one, by `what`."""
    total: Tallies = {}
    for table in tables:
        for row in table.to_pylist():
            total.setdefault(row["what"], Counter())[row["value"]] += row["count"]
    return total
