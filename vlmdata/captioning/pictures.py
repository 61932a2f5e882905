"""What of a picture is sent to a captioner: upright, opaque, no larger than asked, and nothing of its owner."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
JPEG_QUALITY = 90
# Where Pillow keeps a place, a time, a name: not for a stranger's server.
_PERSONAL = {"exif", "xmp", "XML:com.adobe.xmp", "photoshop", "comment"}
_ORIENTATION = 0x0112
_ON_ITS_SIDE = {5, 6, 7, 8}


class UnsendablePicture(ValueError):
    """The bytes do not decode within Pillow's limits."""


@dataclass(frozen=True)
class Picture:
    """Encoded bytes, their media type, and their size in pixels; `url` is where an API may fetch them instead."""

    data: bytes
    media_type: str
    width: int
    height: int
    url: str | None = None


def for_sending(original: bytes, max_side: int) -> Picture:
    """The original bytes if they will do, else a JPEG: upright, on white, RGB, at most `max_side` px.

    Originals will do that are JPEG, PNG or WebP of one frame, upright, opaque,
    small enough and without metadata. Pictures are never enlarged.

    Raises:
        UnsendablePicture: the bytes do not decode, or hold more pixels than Pillow allows.
    """
    from PIL import Image

    from vlmdata.measure.pixels import upright_rgb

    try:
        with Image.open(BytesIO(original)) as image:
            kind = MEDIA_TYPES.get(image.format or "")
            size, small = _fitting(image.size, max_side), max(image.size) <= max_side
            # A JPEG decodes to half or a quarter of its size in as much less time.
            image.draft("RGB", (max_side, max_side))
            image.load()
            if kind and small and _plain(image):
                return Picture(original, kind, image.width, image.height)
            turned = image.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE
            return _jpeg(upright_rgb(image), size[::-1] if turned else size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnsendablePicture(f"the picture does not decode: {error}") from error


def _plain(image: Any) -> bool:
    """Whether the file itself may be sent; asked of a loaded image, as PNG may hold its metadata last."""
    return (
        image.mode in {"RGB", "L", "P"}
        and not image.has_transparency_data
        and getattr(image, "n_frames", 1) == 1
        and image.getexif().get(_ORIENTATION, 1) == 1
        and not _PERSONAL.intersection(image.info)
        and not getattr(image, "text", None)
    )


def _fitting(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _jpeg(image: Image, size: tuple[int, int]) -> Picture:
    from PIL.Image import Resampling

    if image.size != size:
        image = image.resize(size, Resampling.LANCZOS, reducing_gap=2.0)  # Pillow's own for thumbnails
    sink = BytesIO()
    image.save(sink, "JPEG", quality=JPEG_QUALITY)
    return Picture(sink.getvalue(), MEDIA_TYPES["JPEG"], *size)
