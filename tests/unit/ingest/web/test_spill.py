"""Bodies on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.errors import StoreError
from vlmdata.ingest.web.spill import Spill, spill


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_what_is_added_is_read(bodies: list[bytes]) -> None:
    with spill() as kept:
        places = [kept.add(body) for body in bodies]
        assert [kept.read(place) for place in reversed(places)] == bodies[::-1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_said() -> None:
    with open("/dev/full", "r+b", buffering=0) as full, pytest.raises(StoreError, match=r"free space, or set TMPDIR"):
        Spill(full).add(b"x")
