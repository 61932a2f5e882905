"""A picture made to fit: never enlarged, never distorted."""

from __future__ import annotations

from PIL import Image

from vlmdata.config import PixelsConfig

Size = tuple[int, int]

_FILTERS = {name.lower(): Image.Resampling[name] for name in Image.Resampling.__members__}


def scaled(size: Size, asked: PixelsConfig) -> Size:
    """Width and height of a picture of `size`, px, before anything is put around it.

    The side that is asked for is exact, the other rounded to the nearest pixel.
    """
    if asked.side is None:
        return size
    shorter = asked.mode == "resize" and asked.by == "shorter"
    now = min(size) if shorter else max(size)
    if now <= asked.side:
        return size
    width, height = (max(1, (2 * side * asked.side + now) // (2 * now)) for side in size)
    return width, height


def canvas(size: Size, asked: PixelsConfig) -> Size:
    """Width and height of what leaves, of a picture whose scaled size this is."""
    return (asked.side, asked.side) if asked.mode == "pad" and asked.side else size


def fitted(image: Image.Image, asked: PixelsConfig) -> Image.Image:
    """The RGB picture at its scaled size, on its canvas; itself if it is so already."""
    size = scaled(image.size, asked)
    if size != image.size:
        image = image.resize(size, _FILTERS[asked.interpolation])
    whole = canvas(size, asked)
    if whole == size:
        return image
    padded = Image.new("RGB", whole, asked.color)
    padded.paste(image, corner(size, whole, asked.position))
    return padded


def corner(size: Size, whole: Size, position: str) -> Size:
    """Where the picture's top left pixel lies; in the centre, an odd pixel is to the right or below."""
    across = 0 if "left" in position else 2 if "right" in position else 1
    down = 0 if "top" in position else 2 if "bottom" in position else 1
    return (whole[0] - size[0]) * across // 2, (whole[1] - size[1]) * down // 2
