"""Bodies on disk."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.errors import StoreError
from vlmdata.ingest.web.spill import Place, Spill, spill


@given(st.lists(st.binary(max_size=50), max_size=40))
def test_what_is_added_is_read(bodies: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch, spill() as kept:
        patch.setattr("vlmdata.ingest.web.spill._TOGETHER", 60)
        patch.setattr("vlmdata.ingest.web.spill._BEHIND", 100)
        places = asyncio.run(_add_all(kept, bodies))
        assert [kept.read(place) for place in reversed(places)] == bodies[::-1]


@given(st.lists(st.binary(max_size=9), max_size=12), st.integers(1, 20))
def test_what_a_write_leaves_is_written_next(bodies: list[bytes], most: int) -> None:
    done, write = bytearray(), os.pwritev

    def short(file: int, parts: list[bytes], offset: int) -> int:
        assert offset == len(done)
        done.extend(b"".join(parts)[:most])
        return write(file, [b"".join(parts)[:most]], offset)

    with pytest.MonkeyPatch.context() as patch, spill() as kept:
        patch.setattr(os, "pwritev", short)
        places = asyncio.run(_add_all(kept, bodies))
        assert [kept.read(place) for place in places] == bodies


def test_memory_does_not_make_up_for_a_slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmdata.ingest.web.spill._TOGETHER", 1_000)
    monkeypatch.setattr("vlmdata.ingest.web.spill._BEHIND", 3_000)
    free, held = threading.Event(), []
    write, taken = os.pwritev, Spill._taken

    def slow(file: int, bodies: list[bytes], offset: int) -> int:
        assert free.wait(10)
        return write(file, bodies, offset)

    def told(kept: Spill) -> tuple[list[bytes], int]:
        bodies, offset = taken(kept)
        held.append(sum(len(body) for body in bodies))
        if held[-1] >= 3_000:
            # The event loop itself waits for the disk, which was stuck until then.
            free.set()
        return bodies, offset

    monkeypatch.setattr(os, "pwritev", slow)
    monkeypatch.setattr(Spill, "_taken", told)
    bodies = [bytes([at]) * 100 for at in range(100)]
    with spill() as kept:
        places = asyncio.run(_add_all(kept, bodies))
        assert [kept.read(place) for place in places] == bodies
    assert free.is_set() and max(held) <= 3_000


def test_what_is_still_being_written_never_reaches_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped leaves a thread that writes, and the number of its file to whoever opens the next."""
    monkeypatch.setattr("vlmdata.ingest.web.spill._TOGETHER", 1)
    begun, free, write = threading.Event(), threading.Event(), os.pwritev

    def stuck(file: int, bodies: list[bytes], offset: int) -> int:
        begun.set()
        assert free.wait(10)
        return write(file, [bodies[0][:1]], offset)

    monkeypatch.setattr(os, "pwritev", stuck)

    async def stopped(kept: Spill) -> None:
        adding = asyncio.ensure_future(kept.add(b"x" * 9))
        await asyncio.to_thread(begun.wait, 10)
        adding.cancel()
        threading.Timer(0.1, free.set).start()
        kept.close()
        (tmp_path / "other").touch()
        with (tmp_path / "other").open("r+b"):
            await asyncio.sleep(0.1)

    with spill() as kept:
        asyncio.run(stopped(kept))
    assert (tmp_path / "other").read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_said() -> None:
    with open("/dev/full", "r+b", buffering=0) as full, pytest.raises(StoreError, match=r"free space, or set TMPDIR"):
        asyncio.run(_add_all(Spill(full), [b"x"]))


async def _add_all(kept: Spill, bodies: list[bytes]) -> list[Place]:
    """As downloads do, all at once."""
    places = await asyncio.gather(*(kept.add(body) for body in bodies))
    await kept.settle()
    return places
