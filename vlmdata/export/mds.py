"""MDS: shards that mosaicml-streaming's `StreamingDataset` reads, with its `index.json`.

A file is n (uint32), n + 1 offsets (uint32), the columns as JSON, and the
samples; a sample is the sizes of its columns (uint32), then their bytes.
Little-endian. https://docs.mosaicml.com/projects/streaming, "Dataset format"
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vlmdata.errors import ConfigError
from vlmdata.export.format import FOUND, File, Found, Read
from vlmdata.export.pixels import Picture
from vlmdata.export.story import story

INDEX = "index.json"

_COLUMNS = {"caption": "str", "id": "str", "image": "jpeg", "json": "json"}
"""In the order of their names, as the reader expects. It opens what it calls jpeg with Pillow, whatever that is."""
_SHAPE: dict[str, Any] = {
    "column_encodings": list(_COLUMNS.values()),
    "column_names": list(_COLUMNS),
    "column_sizes": [None] * len(_COLUMNS),
    "compression": None,
    "format": "mds",
    "hashes": ["sha256"],
    "size_limit": None,
    "version": 2,
}
_NUMBER = np.dtype("<u4")
_MOST_BYTES = np.iinfo(_NUMBER).max


def write(rows: pa.Table, pictures: Sequence[Picture], shard: str) -> list[File]:
    """One file of n samples: `rows` (n rows of `rows.ROWS`) and their pictures; the caption is the best one.

    Raises:
        ConfigError: it would have 4 GiB or more, which the format cannot tell.
    """
    samples = [_sample(row, picture) for row, picture in zip(rows.to_pylist(), pictures, strict=True)]
    columns = json.dumps(_SHAPE, sort_keys=True).encode()
    sizes = [sum(map(len, sample)) for sample in samples]
    offsets = np.cumsum([_NUMBER.itemsize * (len(samples) + 2) + len(columns), *sizes])
    if offsets[-1] > _MOST_BYTES:
        raise ConfigError(f"export.bytes_per_shard: mds shard {shard} would have {offsets[-1]:,} bytes; choose fewer")
    head = [np.array(len(samples), _NUMBER).tobytes(), offsets.astype(_NUMBER).tobytes(), columns]
    return [File(f"{shard}.mds", b"".join([*head, *(part for sample in samples for part in sample)]))]


def read_back(path: str, read: Read) -> Found:
    """What a file holds; the offset is that of the picture's first byte."""
    data = read(path)
    rows, pictures = [], []
    for at in _starts(data):
        ends = np.cumsum([at + _NUMBER.itemsize * len(_COLUMNS), *_numbers(data, at, len(_COLUMNS))]).tolist()
        if ends[-1] > data.size:
            raise ValueError(f"the sample at byte {at} is longer than the file")
        column = {name: data[start:stop] for name, start, stop in zip(_COLUMNS, ends, ends[1:], strict=False)}
        told = json.loads(column["json"].to_pybytes())
        sample = column["id"].to_pybytes().decode()
        rows.append({"id": sample, "captions": len(told["captions"]), "file": path, "offset": ends[2]})
        pictures.append(column["image"])
    return Found(pa.Table.from_pylist(rows, schema=FOUND), pictures)


def index(files: Sequence[Mapping[str, Any]], read: Read) -> Iterator[bytes]:
    """`index.json`."""
    shards = [
        {
            **_SHAPE,
            "raw_data": {"basename": file["path"], "bytes": file["bytes"], "hashes": {"sha256": file["sha256"]}},
            "samples": file["samples"],
            "zip_data": None,
        }
        for file in files
    ]
    yield json.dumps({"shards": shards, "version": 2}, sort_keys=True).encode() + b"\n"


def _sample(row: dict[str, Any], picture: Picture) -> list[bytes]:
    values = [(row["caption"] or "").encode(), row["id"].encode(), picture.data, story(row, picture)]
    return [np.array([len(value) for value in values], _NUMBER).tobytes(), *values]


def _starts(data: pa.Buffer) -> list[int]:
    """Where each sample begins."""
    [count] = _numbers(data, 0, 1)
    return _numbers(data, _NUMBER.itemsize, count + 1)[:-1]


def _numbers(data: pa.Buffer, at: int, count: int) -> list[int]:
    numbers: list[int] = np.frombuffer(data, _NUMBER, count, at).tolist()
    return numbers
