"""JPEG without its personal metadata, the compressed stream untouched.

ITU-T T.81, annex B. Kept: what decodes the picture, the JFIF header less its
thumbnail, and Adobe's APP14 (it decides the colour transform). Dropped: ICC
profiles, EXIF, XMP, IPTC, comments, every other APPn, and all that follows the
end of the image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vlmdata.export.metadata import Malformed

_START, _END = b"\xff\xd8", b"\xff\xd9"
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The next marker in entropy-coded data: not a stuffed zero, not a restart; fill bytes stay with the scan."""

_APP0, _APP14, _APP15 = 0xE0, 0xEE, 0xEF
_COMMENT, _EOI, _SOS = 0xFE, 0xD9, 0xDA
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_DHT, _DQT, _DAC, _DNL, _DRI = 0xC4, 0xDB, 0xCC, 0xDC, 0xDD


class _Segment(NamedTuple):
    marker: int
    body: bytes
    scan: memoryview
    """Entropy-coded data that follows a start of scan; else empty."""


def strip(data: bytes) -> bytes:
    """The same picture without personal metadata or trailing bytes.

    Raises:
        Malformed: a segment is not as the standard says.
    """
    segments = list(_segments(data))
    markers = {segment.marker for segment in segments}
    if not (markers & _FRAMES and _SOS in markers):
        raise Malformed("no frame or no scan")
    parts: list[bytes | memoryview] = [_START]
    for segment in segments:
        body = _kept(segment)
        if body is not None:
            parts += [
                b"\xff",
                bytes([segment.marker]),
                (len(body) + 2).to_bytes(2, "big"),
                body,
                segment.scan,
            ]
    parts.append(_END)
    return b"".join(parts)


def _segments(data: bytes) -> Iterator[_Segment]:
    """Every segment from the start of the image to its end."""
    if not data.startswith(_START):
        raise Malformed("no start of image")
    view, position = memoryview(data), len(_START)
    while True:
        found = _MARKER.match(data, position)
        if found is None:
            raise Malformed(f"no marker at byte {position}")
        marker, start = found[1][0], found.end()
        if marker == _EOI:
            return
        end = start + int.from_bytes(view[start : start + 2], "big")
        if end < start + 2 or end > len(data):
            raise Malformed(f"segment at byte {start} runs past the end")
        position = _end_of_scan(data, end) if marker == _SOS else end
        yield _Segment(marker, data[start + 2 : end], view[end:position])


def _end_of_scan(data: bytes, start: int) -> int:
    found = _AFTER_SCAN.search(data, start)
    if found is None:
        raise Malformed("no end of image")
    return found.start()


def _kept(segment: _Segment) -> bytes | None:
    """The segment's body as it goes into the export, or None."""
    marker, body = segment.marker, segment.body
    if marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 14:
        return body[:12] + b"\0\0"
    if marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
        return body[:12]
    if _APP0 <= marker <= _APP15 or marker == _COMMENT:
        return None
    if not _is_sound(marker, body):
        raise Malformed(f"segment {marker:#04x} is not as long as its content says")
    return body


def _is_sound(marker: int, body: bytes) -> bool:
    """Whether a decoding segment holds what it must and nothing beside it."""
    if marker in _FRAMES:
        return len(body) > 5 and len(body) == 6 + 3 * body[5]
    if marker == _SOS:
        return len(body) > 0 and len(body) == 4 + 2 * body[0]
    if marker == _DHT:
        return _is_whole(body, lambda at: 17 + sum(body[at + 1 : at + 17]), highest=0x13)
    if marker == _DQT:
        return _is_whole(body, lambda at: 129 if body[at] & 0xF0 else 65, highest=0x13)
    if marker == _DAC:
        return 0 < len(body) <= 64 and len(body) % 2 == 0 and not any(pair & 0xEC for pair in body[::2])
    return marker in {_DRI, _DNL} and len(body) == 2


def _is_whole(body: bytes, size_at: Callable[[int], int], highest: int) -> bool:
    """Whether a list of tables, each with its own size, fills the body exactly."""
    position = 0
    while position < len(body):
        if body[position] > highest or body[position] & 0x0F > 3:
            return False
        position += size_at(position)
    return position == len(body) > 0
