"""Counting rows of many tables by DuckDB: they stream through it, and memory grows with the distinct values alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.errors import VlmdataError

OTHERS = "(all others)"
"""What rare values are counted under."""

MOST_VALUES = 100
"""Values that a distribution tells apart; strangers choose how many there are."""


def count(
    schema: pa.Schema, tables: Iterable[pa.Table], groups: Sequence[tuple[str, ...]], total: str | None = None
) -> list[pa.Table]:
    """How many rows there are of each combination of values, for each group of columns.

    Args:
        schema: Of every table.
        tables: Read one after the other, in one pass for all groups.
        groups: Columns that are counted together.
        total: A column of integers to add up beside the count, exactly; null counts as none.

    Returns:
        For each group a table of its columns, `count` (int64) and, if asked for, `total` (float64), sorted.
    """
    columns = list(dict.fromkeys(name for group in groups for name in group))
    figures = ["count", *(["total"] if total else [])]
    counted = _run(_query(columns, groups, total), schema, tables)
    return [_of_group(counted, columns, group, figures) for group in groups]


def _query(columns: Sequence[str], groups: Sequence[tuple[str, ...]], total: str | None) -> str:
    named = ", ".join(columns)
    summed = f", coalesce(sum({total}), 0)::DOUBLE AS total" if total else ""
    sets = ", ".join(f"({', '.join(group)})" for group in groups)
    return (
        f"SELECT {named}, grouping({named}) AS absent, count(*) AS count{summed} "
        f"FROM rows GROUP BY GROUPING SETS ({sets})"
    )


def _run(query: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> pa.Table:
    import duckdb

    raised: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for table in tables:
                yield from table.to_batches()
        except (VlmdataError, OSError) as error:
            raised.append(error)
            raise

    with duckdb.connect(config={"enable_external_access": False}) as database:
        database.register("rows", pa.RecordBatchReader.from_batches(schema, batches()))
        try:
            return database.sql(query).to_arrow_table()
        except duckdb.Error:
            if raised:
                # DuckDB would pass on the words of our error, but not its kind.
                raise raised[0] from None
            raise


def _of_group(counted: pa.Table, columns: Sequence[str], group: tuple[str, ...], figures: Sequence[str]) -> pa.Table:
    absent = sum(1 << place for place, name in enumerate(reversed(columns)) if name not in group)
    rows = counted.filter(pc.equal(counted["absent"], absent)).select([*group, *figures])
    return rows.sort_by([(name, "ascending") for name in group])


def common_values(counted: pa.Table, column: str, most: int = MOST_VALUES) -> pa.Table:
    """The same counts with all values of a column but the most frequent under one name, `OTHERS`."""
    totals = counted.group_by(column).aggregate([("count", "sum")])
    if totals.num_rows <= most:
        return counted
    ranked = totals.sort_by([("count_sum", "descending"), (column, "ascending")])
    common = pc.is_in(counted[column], value_set=ranked[column].slice(0, most).combine_chunks())
    values = pc.if_else(common, counted[column], OTHERS)
    return summed(counted.set_column(counted.column_names.index(column), column, values))


def summed(counted: pa.Table) -> pa.Table:
    """Counts of equal rows added up."""
    figures = [name for name in ("count", "total") if name in counted.column_names]
    keys = [name for name in counted.column_names if name not in figures]
    added = counted.group_by(keys).aggregate([(name, "sum") for name in figures])
    renamed = pa.table({name: added[name if name in keys else f"{name}_sum"] for name in counted.column_names})
    return renamed.sort_by([(name, "ascending") for name in keys])
