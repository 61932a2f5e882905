"""Lines of a file that comes in pieces, and ids that stand in paths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.captioning.batches import wire

PIECES = st.lists(st.binary(max_size=8) | st.sampled_from([b"\n", "\u2028".encode(), b"\r", b'{"a": 1}']))


def lines_of(pieces: list[bytes]) -> list[tuple[bytes, bool]]:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def collected() -> list[tuple[bytes, bool]]:
        return [line async for line in wire.lines_of(chunks())]

    return asyncio.run(collected())


@given(PIECES)
def test_lines_are_the_same_however_the_file_is_cut(pieces: list[bytes]) -> None:
    *ended, rest = b"".join(pieces).split(b"\n")
    assert lines_of(pieces) == [(line, True) for line in ended] + ([(rest, False)] if rest.strip() else [])


@given(PIECES)
def test_no_more_of_a_line_is_held_than_allowed(pieces: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "LARGEST_LINE", 4)
        lines = [line for line, _ in lines_of(pieces)]
    *ended, rest = b"".join(pieces).split(b"\n")
    assert lines == [line[:4] for line in ended] + ([rest[:4]] if rest[:4].strip() else [])


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a?b", "a b", "a%2f", "ü", "a\n"])
def test_an_id_that_might_lead_elsewhere_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="is no id"):
        wire.in_path(name)


@pytest.mark.parametrize("name", ["batch_67a", "msgbatch_01H", "file-a.b", "YmF0Y2g=", "a:b;c"])
def test_ids_as_servers_give_them(name: str) -> None:
    assert "/" not in wire.in_path(name)


@pytest.mark.parametrize(
    ("counts", "total"), [({"a": 1, "b": 2, "c": 4}, 3), ({"a": None, "b": True}, 0), (None, 0), ({"a": -1, "b": 1}, 1)]
)
def test_what_is_no_count_is_none(counts: object, total: int) -> None:
    assert wire.count(counts, "a", "b") == total
