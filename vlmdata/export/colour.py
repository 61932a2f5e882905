"""Every picture leaves in sRGB and without a profile; this brings the others' colours there.

LittleCMS converts, relative colorimetric with black point compensation, at 8
bits. A profile is sRGB if it does to a grid of colours what sRGB does, whatever
it is called. Profiles come from strangers: one that is broken, large, of
another kind than the picture, or that runs a program of its own is not used.
"""

from __future__ import annotations

import io
from functools import cache, lru_cache
from typing import Literal

from PIL import Image, ImageChops, ImageCms

from vlmdata.export import png
from vlmdata.export.png_colour import profile_of
from vlmdata.measure.pixels import eight_bits

Model = Literal["RGB", "L", "CMYK"]

_MODELS: dict[str, Model] = {"CMYK": "CMYK", **dict.fromkeys(["1", "L", "LA", "La", "I", "F"], "L")}
_SPACES: dict[Model, bytes] = {"RGB": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK"}
_CLASSES = {b"mntr", b"scnr", b"prtr", b"spac"}
_LARGEST = 4 << 20
"""Bytes; printers' profiles have up to 3 MB."""
_PROGRAM = b"mpet"
"""Multi-process elements: half a million steps for each colour fit into a small profile."""
_ALIKE = 2
"""Levels of 255 that sRGB profiles of several makers may differ by."""


class Conversion:
    """From the colours of one profile to sRGB."""

    def __init__(self, profile: bytes, model: Model) -> None:
        """Raises `ImageCms.PyCMSError` or OSError if LittleCMS can make nothing of it."""
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        self.model = model
        self._transform = ImageCms.buildTransform(source, _srgb(), model, "RGB", intent, flags)

    def __call__(self, image: Image.Image) -> Image.Image:
        """The picture as RGB, or as RGBA if it may be transparent."""
        opaque = eight_bits(image).convert("L") if image.mode.startswith("I;16") else image.convert(self.model)
        found = self._apply(opaque)
        if image.has_transparency_data:
            found.putalpha(image.convert("RGBA").getchannel("A"))
        return found

    def changes_anything(self) -> bool:
        """Whether it moves any colour further than makers of sRGB profiles differ."""
        if self.model == "CMYK":
            return True
        colours = _grid(self.model)
        differences = ImageChops.difference(self._apply(colours), colours.convert("RGB")).getextrema()
        return max(most for _, most in differences) > _ALIKE  # type: ignore[misc, operator, unused-ignore]

    def _apply(self, image: Image.Image) -> Image.Image:
        found = Image.new("RGB", image.size)
        self._transform.apply(image, found)
        found.info = {}
        return found


def to_srgb(image: bytes, opened: Image.Image) -> Conversion | None:
    """What brings the picture into sRGB; None if it is, or if nothing sound says otherwise."""
    model = "L" if opened.mode.startswith("I;16") else _MODELS.get(opened.mode, "RGB")
    profile = opened.info.get("icc_profile")
    if opened.format == "PNG":
        profile = profile_of(png.colour_chunks(image), profile, grey=model == "L")
    return _conversion(profile, model) if isinstance(profile, bytes) and len(profile) <= _LARGEST else None


# Keeps profiles of 4 MiB at most; a set's pictures have few different ones.
@lru_cache(maxsize=16)
def _conversion(profile: bytes, model: Model) -> Conversion | None:
    if profile[12:16] not in _CLASSES or profile[16:20] != _SPACES[model] or _PROGRAM in profile:
        return None
    try:
        conversion = Conversion(profile, model)
    except (ImageCms.PyCMSError, OSError):
        return None
    return conversion if conversion.changes_anything() else None


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@cache
def _grid(model: Model) -> Image.Image:
    """Every grey, or 18 levels of each primary in all combinations."""
    if model == "L":
        return Image.frombytes("L", (256, 1), bytes(range(256)))
    levels = range(0, 256, 15)
    colours = bytes(value for red in levels for green in levels for blue in levels for value in (red, green, blue))
    return Image.frombytes("RGB", (18 * 18, 18), colours)
