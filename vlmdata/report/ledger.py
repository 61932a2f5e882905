"""Every sample of a run and all of its captions, as two tables that the page and the server ask.

They lie in a DuckDB file that is gone when the ledger is closed: shards stream
into it a few at a time, so memory does not grow with the set.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa

from vlmdata.checkpoint import Shard
from vlmdata.errors import StoreError, VlmdataError
from vlmdata.health.reading import ahead
from vlmdata.layout import Stage
from vlmdata.report.fates import ASKED, CAPTIONS, ENDED, SAMPLES, asked, captions, exported, samples
from vlmdata.runs import Run

_MEMORY = "768MB"
"""What DuckDB may hold; the rest is on disk."""
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "max_temp_directory_size")
"""What DuckDB says of a full disk: the system's words, or that nothing more fits beside what lies there."""

Row = dict[str, Any]


class Ledger:
    """Tables `samples` (`fates.SAMPLES`), `captions` (`fates.CAPTIONS`) and `asked` (`fates.ASKED`)."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._lock = threading.Lock()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """The answer to a query, a dict a row; threads may ask at once."""
        with self._lock:
            cursor = self._database.cursor()
        try:
            found: list[Row] = cursor.sql(query, params=list(values)).to_arrow_table().to_pylist()
        finally:
            cursor.close()
        return found

    def value(self, query: str, values: Sequence[Any] = ()) -> Any:
        """The first value of the first row."""
        return next(iter(self.rows(query, values)[0].values()))


@contextmanager
def ledger_of(run: Run) -> Iterator[Ledger]:
    """The ledger of a run, finished or not, for as long as the block runs.

    Raises:
        StoreError: a checkpoint is gone or damaged, or the disk of temporary files is full.
    """
    import duckdb

    with _on_disk() as folder:
        settings: dict[str, Any] = {
            "memory_limit": _MEMORY,
            "temp_directory": f"{folder}/spilled",
            "preserve_insertion_order": "false",
        }
        with duckdb.connect(f"{folder}/ledger.duckdb", config=settings) as database:
            # What strangers wrote is bound, never part of a query; nor can a query reach anything else.
            database.execute("SET enable_external_access = false")
            _fill(database, run)
            yield Ledger(database)


@contextmanager
def _on_disk() -> Iterator[str]:
    """A folder that is gone afterwards."""
    import duckdb

    try:
        with tempfile.TemporaryDirectory(prefix="vlmdata-report-") as folder:
            yield folder
    except (duckdb.Error, OSError) as error:
        if not any(words in str(error) for words in _FULL):
            raise
        where = tempfile.gettempdir()
        raise StoreError(
            f"{where}: no space left for the report's tables; free space, or set TMPDIR to another folder"
        ) from error


def _fill(database: Any, run: Run) -> None:
    last, shards = last_stage(run)
    dataset = run.dataset
    _load(database, "samples", SAMPLES, ahead(partial(samples, dataset, last), shards))
    _load(database, "captions", CAPTIONS, ahead(partial(captions, dataset, last), shards))
    _load(database, "asked", ASKED, ahead(partial(asked, dataset), shards))
    final = run.stage(Stage.FINAL)
    if final is not None:
        _load(database, "ended", ENDED, ahead(partial(exported, dataset), final.shards))
        told = ", ".join(f"{name} = ended.{name}" for name in ENDED.names if name != "id")
        database.execute(f"UPDATE samples SET {told} FROM ended WHERE samples.id = ended.id")


def last_stage(run: Run) -> tuple[Stage, Sequence[Shard]]:
    """The last stage up to 03 that a run reached, and its shards, which have every checkpoint so far."""
    for stage in (Stage.CHECKED, Stage.CAPTIONED, Stage.FILTERED, Stage.RAW):
        report = run.stage(stage)
        if report:
            return stage, report.shards
    return Stage.RAW, ()


def _load(database: Any, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """A table of DuckDB from tables that come one after the other."""
    import duckdb

    raised: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for table in tables:
                yield from table.to_batches()
        except (VlmdataError, OSError) as error:
            raised.append(error)
            raise

    database.register("incoming", pa.RecordBatchReader.from_batches(schema, batches()))
    try:
        database.execute(f"CREATE TABLE {name} AS SELECT * FROM incoming")
    except duckdb.Error:
        if raised:
            # DuckDB would pass on the words of our error, but not its kind.
            raise raised[0] from None
        raise
    finally:
        database.unregister("incoming")
