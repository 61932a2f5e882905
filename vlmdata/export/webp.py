"""WebP without its personal metadata, the compressed stream untouched.

RFC 9649, section 2. Kept: the bitstream, its alpha plane and the header that
announces it. Dropped: ICC profiles, EXIF, XMP, unknown chunks, and all that
follows the RIFF chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vlmdata.export.metadata import Malformed

_ALPHA = 0x10
_BITSTREAMS = {b"VP8 ", b"VP8L"}


class _Chunk(NamedTuple):
    name: bytes
    body: memoryview


def strip(data: bytes) -> bytes:
    """The same picture without personal metadata or trailing bytes.

    Raises:
        Malformed: a chunk is not as the standard says, or the picture is animated.
    """
    chunks = list(_chunks(data))
    names = [chunk.name for chunk in chunks]
    if {b"ANIM", b"ANMF"}.intersection(names) or sum(name in _BITSTREAMS for name in names) != 1:
        raise Malformed("animated, or not exactly one picture")
    kept = _extended(chunks) if names[0] == b"VP8X" else chunks[:1]
    if kept[-1].name not in _BITSTREAMS:
        raise Malformed("the picture is not where it must be")
    body = b"".join(part for chunk in kept for part in _written(chunk))
    return b"".join([b"RIFF", (len(body) + 4).to_bytes(4, "little"), b"WEBP", body])


def is_lossless(data: bytes) -> bool:
    """Whether the (first) picture is a lossless bitstream."""
    try:
        return _first_bitstream(data, 12) == b"VP8L"
    except Malformed:
        return False


def _first_bitstream(data: bytes | memoryview, start: int) -> bytes:
    for chunk in _walk(memoryview(data), start, len(data)):
        if chunk.name in _BITSTREAMS:
            return chunk.name
        if chunk.name == b"ANMF":
            return _first_bitstream(chunk.body, 16)
    raise Malformed("no picture")


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Every chunk within the RIFF chunk."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or not 20 <= end <= len(data):
        raise Malformed("no RIFF header, or it promises more bytes than there are")
    return _walk(memoryview(data), 12, end)


def _walk(view: memoryview, position: int, end: int) -> Iterator[_Chunk]:
    while position + 8 <= end:
        size = int.from_bytes(view[position + 4 : position + 8], "little")
        if position + 8 + size > end:
            raise Malformed(f"chunk at byte {position} runs past the end")
        yield _Chunk(bytes(view[position : position + 4]), view[position + 8 : position + 8 + size])
        position += 8 + size + size % 2


def _extended(chunks: list[_Chunk]) -> list[_Chunk]:
    """The chunks of an extended file that are kept, VP8X flags made true."""
    if len(chunks[0].body) != 10:
        raise Malformed("VP8X is not 10 bytes long")
    kept = [chunk for chunk in chunks[1:] if chunk.name in _BITSTREAMS | {b"ALPH"}]
    flags = chunks[0].body[0] & _ALPHA
    canvas = bytes(chunks[0].body[4:])
    return [_Chunk(b"VP8X", memoryview(bytes([flags, 0, 0, 0]) + canvas)), *kept]


def _written(chunk: _Chunk) -> list[bytes | memoryview]:
    padding = b"\0" * (len(chunk.body) % 2)
    return [chunk.name, len(chunk.body).to_bytes(4, "little"), chunk.body, padding]
