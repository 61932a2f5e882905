"""Where pictures come from."""

from __future__ import annotations

import pyarrow as pa
import pytest

from vlmdata.provenance import came_from


@pytest.mark.parametrize(
    ("url", "source", "expected"),
    [
        ("https://Img.Example.org/a/b.jpg", "a/b.jpg", "img.example.org"),
        ("http://u:p@a.example:8080/x?y#z", "x", "a.example"),
        ("s3://bucket/a.jpg", "x", "bucket"),
        (None, "animals/bears/1.jpg", "animals"),
        (None, "part-0.tar/1.jpg", "part-0.tar"),
        (None, "1.jpg", "."),
        (None, None, "."),
        ("no address", "animals/1.jpg", "animals"),
    ],
)
def test_a_host_or_a_folder(url: str | None, source: str | None, expected: str) -> None:
    columns = {"url": pa.array([url], pa.string()), "source": pa.array([source], pa.string())}
    assert came_from(pa.table(columns)).to_pylist() == [expected]
