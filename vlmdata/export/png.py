"""PNG without its personal metadata, the compressed stream untouched.

PNG (third edition), section 11. Kept: the critical chunks and those that say
how transparency and pixel shape are meant. Dropped: what says which colours are
meant (`colour_chunks` reads it), text, time, EXIF, animation, private chunks,
and all that follows IEND.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from vlmdata.export.metadata import Malformed

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_SIZES: dict[bytes, range] = {
    b"IHDR": range(13, 14),
    b"PLTE": range(3, 769, 3),
    b"IEND": range(1),
    b"sBIT": range(1, 5),
    b"tRNS": range(1, 257),
    b"bKGD": range(1, 7),
    b"pHYs": range(9, 10),
}
"""Chunks that are kept, and how many bytes each may hold."""
_COLOURS = {b"cICP", b"sRGB", b"gAMA", b"cHRM"}


class _Chunk(NamedTuple):
    name: bytes
    body: memoryview
    whole: memoryview


def strip(data: bytes) -> bytes:
    """The same picture without personal metadata or trailing bytes.

    Raises:
        Malformed: a chunk is not as the standard says.
    """
    chunks = list(_chunks(data))
    names = [chunk.name for chunk in chunks]
    if names[0] != b"IHDR" or b"IDAT" not in names:
        raise Malformed("no IHDR in front, or no IDAT")
    return b"".join([_SIGNATURE, *[part for chunk in chunks for part in _kept(chunk)]])


def may_name_orientation(data: bytes) -> bool:
    """Whether any chunk could say how the picture is turned; answered without decoding it."""
    return any(name in data for name in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"))


def colour_chunks(data: bytes) -> dict[bytes, bytes]:
    """Bodies of those of cICP, sRGB, gAMA and cHRM that stand before the pixels, the first of each."""
    found: dict[bytes, bytes] = {}
    try:
        for chunk in _chunks(data):
            if chunk.name == b"IDAT":
                break
            if chunk.name in _COLOURS:
                found.setdefault(chunk.name, bytes(chunk.body))
    except Malformed:
        return found  # the picture is encoded anew; what it said before the damage holds
    return found


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Every chunk up to IEND."""
    if not data.startswith(_SIGNATURE):
        raise Malformed("no PNG signature")
    view, position = memoryview(data), len(_SIGNATURE)
    while True:
        size = int.from_bytes(view[position : position + 4], "big")
        end = position + 12 + size
        if end > len(data):
            raise Malformed(f"chunk at byte {position} runs past the end")
        whole = view[position:end]
        chunk = _Chunk(bytes(whole[4:8]), whole[8:-4], whole)
        yield chunk
        if chunk.name == b"IEND":
            return
        position = end


def _kept(chunk: _Chunk) -> list[bytes | memoryview]:
    """The chunk as it goes into the export, in parts; none if it does not."""
    if chunk.name == b"IDAT":
        return [chunk.whole]
    fits = len(chunk.body) in _SIZES.get(chunk.name, ()) and _checksum(chunk.whole[4:-4]) == chunk.whole[-4:]
    if not fits and not chunk.name[0] & 0x20:
        raise Malformed(f"critical chunk {chunk.name!r} is unknown or damaged")
    return [chunk.whole] if fits else []


def _checksum(named: bytes | memoryview) -> bytes:
    return zlib.crc32(named).to_bytes(4, "big")
