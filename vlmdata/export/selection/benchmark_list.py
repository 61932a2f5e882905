"""A file that names the pictures of an evaluation set by their hashes and, if a model looked at them, embeddings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.errors import ConfigError
from vlmdata.filtering.look import half_vectors
from vlmdata.quality.embeddings import vector_column

ROWS = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False, metadata={"note": "the evaluation set's own name for it"}),
        pa.field("sha256", pa.string(), nullable=False, metadata={"note": "of its bytes"}),
        pa.field("phash", pa.uint64(), nullable=False),
    ]
)
"""One row a picture; a column `embedding` beside them if it was embedded."""
_ABOUT = b"vlmdata.benchmark"


@dataclass(frozen=True)
class BenchmarkList:
    """One list.

    Attributes:
        rows: `ROWS`, n of them.
        vectors: float16 (n, d); null: nothing was embedded.
        model: whose embeddings they are.
        digest: sha256 of the file.
    """

    rows: pa.Table
    vectors: npt.NDArray[np.float16] | None
    model: str | None
    digest: str


def write_list(path: Path, rows: pa.Table, vectors: npt.NDArray[np.float32] | None, settings: dict[str, Any]) -> None:
    """Write a list; the same rows give the same bytes.

    Args:
        path: Where.
        rows: `ROWS`.
        vectors: Embeddings (n, d) of all, or none.
        settings: What decided the embeddings.

    Raises:
        ConfigError: it cannot be written there.
    """
    table = rows if vectors is None else rows.append_column("embedding", vector_column(vectors))
    about = {_ABOUT: json.dumps(settings, sort_keys=True).encode()}
    try:
        pq.write_table(table.replace_schema_metadata(about), path, compression="zstd")
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written ({error.strerror or error}); give another file") from error


def digest_of_file(path: str) -> str:
    """sha256 of a list.

    Raises:
        ConfigError: there is none.
    """
    return sha256(_bytes(path)).hexdigest()


def _bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"export.decontaminate.lists: {path}: is not there; vlmdata decontaminate makes it") from None
    except OSError as error:
        raise ConfigError(f"export.decontaminate.lists: {path}: cannot be read ({error.strerror})") from error


def read_list(path: str) -> BenchmarkList:
    """A list that `write_list` wrote.

    Raises:
        ConfigError: there is none, or it is something else.
    """
    data = _bytes(path)
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"export.decontaminate.lists: {path}: cannot be read ({error})") from error
    about = (table.schema.metadata or {}).get(_ABOUT)
    if about is None or not set(ROWS.names) <= set(table.column_names):
        raise ConfigError(f"export.decontaminate.lists: {path}: is no list that vlmdata decontaminate made")
    vectors = half_vectors(table["embedding"]) if "embedding" in table.column_names and table.num_rows else None
    model = json.loads(about).get("model")
    return BenchmarkList(table.select(ROWS.names).cast(ROWS), vectors, model, sha256(data).hexdigest())
