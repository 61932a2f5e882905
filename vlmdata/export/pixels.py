"""A picture as it leaves the house: upright, opaque, and silent about who made it where.

| source | what leaves |
| --- | --- |
| JPEG (MPO: its first picture), PNG, WebP; upright, opaque, one frame | its own compressed stream |
| 16-bit PNG, palette without transparency, progressive, greyscale | its own compressed stream |
| an alpha channel that is opaque throughout | its own compressed stream |
| turned by EXIF | encoded once |
| transparent (alpha or tRNS) | composited on white, encoded once |
| CMYK or YCCK JPEG | RGB, encoded once; its profile, which is not RGB, goes |
| animated | frame one, encoded once |
| GIF, BMP, TIFF and the rest | encoded once |
| damaged metadata structure | encoded once |

Encoded once: PNG if the source was lossless, else JPEG with 4:4:4 chroma. The
pixels are `measure.pixels.upright_rgb`'s, which every earlier stage looked at;
an RGB colour profile stays with them. Width and height are the upright ones.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Literal

from PIL import Image, UnidentifiedImageError

from vlmdata.export import jpeg, png, webp
from vlmdata.export.metadata import Malformed, is_sound_profile
from vlmdata.measure.pixels import ORIENTATION, upright_rgb

Extension = Literal["jpg", "png", "webp"]

_STRIPPERS: dict[str, tuple[Extension, Callable[[bytes], bytes]]] = {
    "JPEG": ("jpg", jpeg.strip),
    "MPO": ("jpg", jpeg.strip),
    "PNG": ("png", png.strip),
    "WEBP": ("webp", webp.strip),
}
_LOSSY = {"JPEG", "MPO", "JPEG2000", "AVIF"}
_RUNS_A_PROGRAM = {"EPS"}
_TURNS = range(2, 9)


class CannotFinish(Exception):
    """A picture that cannot be brought into its final form; the message says why."""


@dataclass(frozen=True)
class Picture:
    """A finished picture. `reencoded`: False if the compressed stream is the source's own."""

    data: bytes
    extension: Extension
    width: int
    height: int
    reencoded: bool

    @cached_property
    def sha256(self) -> str:
        """Hex digest of `data`."""
        return sha256(self.data).hexdigest()


def finished(image: bytes, jpeg_quality: int) -> Picture:
    """Bring one picture (encoded bytes of any format that Pillow reads) into its final form.

    Raises:
        CannotFinish: the bytes are no picture, or Pillow can make nothing of them.
    """
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return _passed_through(image, opened) or _encoded(image, opened, jpeg_quality)
    except UnidentifiedImageError:
        raise CannotFinish("not a picture that can be read") from None
    # Pillow's plugins raise anything at all on hostile bytes; here each becomes a reason.
    except Exception as error:
        words = re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")
        raise CannotFinish(words[:300]) from error


def _passed_through(image: bytes, opened: Image.Image) -> Picture | None:
    """The source's own stream less its metadata; None if that would not do."""
    if opened.format not in _STRIPPERS or opened.mode == "CMYK" or _frames(opened) > 1:
        return None
    if _is_turned(image, opened) or not _is_opaque(opened):
        return None
    extension, strip = _STRIPPERS[opened.format]
    try:
        data = strip(image)
    except Malformed:
        return None
    with Image.open(io.BytesIO(data)) as again:
        if (again.size, again.mode) != (opened.size, opened.mode):
            return None
    return Picture(data, extension, *opened.size, reencoded=False)


def _frames(opened: Image.Image) -> int:
    # An MPO's further pictures follow the first one's end, which the stripper cuts off.
    return 1 if opened.format == "MPO" else int(getattr(opened, "n_frames", 1))


def _is_turned(image: bytes, opened: Image.Image) -> bool:
    # Pillow decodes a whole PNG before it says that there is no EXIF in it.
    if opened.format == "PNG" and not png.may_name_orientation(image):
        return False
    return opened.getexif().get(ORIENTATION, 1) in _TURNS


def _is_opaque(opened: Image.Image) -> bool:
    if not opened.has_transparency_data:
        return True
    lowest, _ = opened.convert("RGBA").getchannel("A").getextrema()
    return lowest == 255


def _encoded(image: bytes, opened: Image.Image, jpeg_quality: int) -> Picture:
    if opened.format in _RUNS_A_PROGRAM:
        raise CannotFinish(f"{opened.format} needs another program to draw it, which is not run")
    profile = opened.info.get("icc_profile")
    # A copy, so that no comment or text of the source is written along.
    pixels = upright_rgb(opened).copy()
    pixels.info = {}
    kept_profile = profile if profile and profile[16:20] == b"RGB " and is_sound_profile(profile) else None
    out = io.BytesIO()
    lossless = not (opened.format in _LOSSY or (opened.format == "WEBP" and not webp.is_lossless(image)))
    if lossless:
        pixels.save(out, "PNG", icc_profile=kept_profile)
    else:
        pixels.save(out, "JPEG", quality=jpeg_quality, subsampling="4:4:4", icc_profile=kept_profile)
    return Picture(out.getvalue(), "png" if lossless else "jpg", *pixels.size, reencoded=True)
