"""A picture as it leaves the house: upright, opaque, in sRGB, and silent about who made it where.

| source | what leaves |
| --- | --- |
| JPEG (MPO: its first picture), PNG, WebP; upright, opaque, one frame | its own compressed stream |
| 16-bit PNG, palette without transparency, progressive, greyscale | its own compressed stream |
| an alpha channel that is opaque throughout | its own compressed stream |
| a profile that is sRGB in effect, whatever its name; PNG: sRGB, gAMA of 1/2.2 | its own stream; the profile goes |
| a profile that is broken, over 4 MiB, not for such pixels, or with multi-process elements | the same |
| PNG: cICP with HDR's curves (PQ, HLG) or a code that is not known | the next of its chunks, else the same |
| any other RGB or grey profile; PNG: any other cICP, gAMA, cHRM | converted to sRGB, encoded once |
| CMYK or YCCK | RGB by its own profile, without a sound one by Pillow's rule, encoded once |
| turned by EXIF | encoded once |
| transparent (alpha, LA, PA, a palette's, tRNS) | composited on white, encoded once |
| animated, several pages | frame one, encoded once |
| GIF, BMP, TIFF and the rest; a format that is not in `formats` | encoded once |
| 16 bits a channel, where another row says encoded | 8 bits |
| larger than `side` (resize, pad), or other than a square of it (pad) | made to fit by `fit`, encoded once |
| damaged metadata structure | encoded once |

Encoded once, whatever the reasons: as `encode_as` says. `auto` is PNG if the
source was lossless, else JPEG; where `formats` lacks that, the nearest that it
has. JPEG is with 4:4:4 chroma; WebP is lossless if the source was. The pixels
are `measure.pixels.upright_rgb`'s, which every earlier stage looked at, but for
their colours. Width and height are those of what leaves.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import IO, Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from vlmdata.config import PictureFormat, PixelsConfig
from vlmdata.export import jpeg, png, webp
from vlmdata.export.colour import Conversion, to_srgb
from vlmdata.export.fit import canvas, fitted, scaled
from vlmdata.export.metadata import Malformed
from vlmdata.measure.pixels import ORIENTATION, upright_rgb

Change = Literal["reformatted", "first_frame", "turned", "composited", "converted", "resized", "padded", "mended"]
"""Why a picture is not its source's own compressed stream: of another format than may leave; one of several frames;
turned by EXIF; laid on white; of other colours than sRGB; scaled down; put into a square; damaged metadata."""

_KEEP = PixelsConfig()
_STRIPPERS: dict[str, tuple[PictureFormat, Callable[[bytes], bytes]]] = {
    "JPEG": ("jpg", jpeg.strip),
    "MPO": ("jpg", jpeg.strip),
    "PNG": ("png", png.strip),
    "WEBP": ("webp", webp.strip),
}
_LOSSY = {"JPEG", "MPO", "JPEG2000", "AVIF"}
_NEAREST: dict[bool, tuple[PictureFormat, ...]] = {True: ("png", "webp", "jpg"), False: ("jpg", "webp", "png")}
"""What pictures become, by whether the source was lossless: the first that may leave."""
_ONE_FRAME = {"MPO", "PSD"}
"""An MPO's further pictures follow the first one's end, which the stripper cuts off; a PSD's frames are its layers."""
_RUNS_A_PROGRAM = {"EPS"}
_TURNS = range(2, 9)


class CannotFinish(Exception):
    """A picture that cannot be brought into its final form; the message says why."""


@dataclass(frozen=True)
class Picture:
    """A finished picture; without `changes`, the compressed stream is the source's own."""

    data: bytes
    extension: PictureFormat
    width: int
    height: int
    changes: tuple[Change, ...] = ()

    @property
    def reencoded(self) -> bool:
        """Whether the compressed stream is another than the source's."""
        return bool(self.changes)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of `data`."""
        return sha256(self.data).hexdigest()


def finished(image: bytes, jpeg_quality: int, asked: PixelsConfig = _KEEP) -> Picture:
    """Bring one picture (encoded bytes of any format that Pillow reads) into its final form.

    Args:
        jpeg_quality: Of JPEG and lossy WebP, where the picture is encoded anew.

    Raises:
        CannotFinish: the bytes are no picture, or Pillow can make nothing of them.
    """
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return _finished(image, opened, jpeg_quality, asked)
    except UnidentifiedImageError:
        raise CannotFinish("not a picture that can be read") from None
    # Pillow's plugins raise anything at all on hostile bytes; here each becomes a reason.
    except Exception as error:
        words = re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")
        raise CannotFinish(words[:300]) from error


def _finished(image: bytes, opened: Image.Image, jpeg_quality: int, asked: PixelsConfig) -> Picture:
    if opened.format in _RUNS_A_PROGRAM:
        raise CannotFinish(f"{opened.format} needs another program to draw it, which is not run")
    conversion = to_srgb(image, opened)
    changes = _changes(image, opened, conversion, asked)
    if not changes and (picture := _passed_through(image, opened)):
        return picture
    as_ = _extension(image, opened, asked)
    lossless = _is_lossless(image, opened)
    pixels = fitted(_upright_srgb(opened, conversion), asked)
    return Picture(_encoded(pixels, as_, lossless, jpeg_quality), as_, *pixels.size, changes or ("mended",))


def _changes(
    image: bytes, opened: Image.Image, conversion: Conversion | None, asked: PixelsConfig
) -> tuple[Change, ...]:
    """What must happen to the pixels, or to their format."""
    extension, _ = _STRIPPERS.get(opened.format or "", (None, None))
    size = scaled(opened.size, asked)
    # Transparency is last: only there may the pixels be decoded, where one file in a hundred has any.
    needed: dict[Change, bool] = {
        "reformatted": extension not in asked.formats,
        "first_frame": opened.format not in _ONE_FRAME and int(getattr(opened, "n_frames", 1)) > 1,
        "turned": _is_turned(image, opened),
        "converted": conversion is not None or opened.mode == "CMYK",
        "resized": size != opened.size,
        "padded": canvas(size, asked) != size,
        "composited": not _is_opaque(opened),
    }
    return tuple(change for change, is_needed in needed.items() if is_needed)


def _passed_through(image: bytes, opened: Image.Image) -> Picture | None:
    """The source's own stream less its metadata; None if its structure is damaged."""
    extension, strip = _STRIPPERS[str(opened.format)]
    try:
        data = strip(image)
    except Malformed:
        return None
    with Image.open(io.BytesIO(data)) as again:
        if (again.size, again.mode) != (opened.size, opened.mode):
            return None
    return Picture(data, extension, *opened.size)


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


def _is_lossless(image: bytes, opened: Image.Image) -> bool:
    return opened.format not in _LOSSY and (opened.format != "WEBP" or webp.is_lossless(image))


def _extension(image: bytes, opened: Image.Image, asked: PixelsConfig) -> PictureFormat:
    """What the picture becomes if it is encoded."""
    if asked.encode_as != "auto":
        return asked.encode_as
    return next(one for one in _NEAREST[_is_lossless(image, opened)] if one in asked.formats)


def _upright_srgb(opened: Image.Image, conversion: Conversion | None) -> Image.Image:
    return upright_rgb(opened if conversion is None else conversion(ImageOps.exif_transpose(opened)))


def _encoded(pixels: Image.Image, as_: PictureFormat, lossless: bool, quality: int) -> bytes:
    # Or Pillow writes a comment or text of the source along.
    pixels.info = {}
    if as_ == "jpg":
        return _jpeg(pixels, quality)
    out = io.BytesIO()
    if as_ == "png":
        pixels.save(out, "PNG")
    else:
        pixels.save(out, "WEBP", **({"lossless": True} if lossless else {"quality": quality}))
    return out.getvalue()


def _jpeg(pixels: Image.Image, quality: int) -> bytes:
    # Into a file of the system's Pillow encodes beside other threads, into a Python object under the global lock.
    with _file_in_memory() as out:
        pixels.save(out, "JPEG", quality=quality, subsampling="4:4:4")
        out.seek(0)
        return out.read()


def _file_in_memory() -> IO[bytes]:
    return open(os.memfd_create("picture"), "w+b", buffering=0) if hasattr(os, "memfd_create") else io.BytesIO()
