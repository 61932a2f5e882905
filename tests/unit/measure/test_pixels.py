"""What "the picture" is: upright, RGB, transparency on white."""

from __future__ import annotations

import io
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image

from vlmdata.measure.decode_worker import measure
from vlmdata.measure.phash import phash_tiles
from vlmdata.measure.pixels import ORIENTATION, tile, upright_rgb

UPRIGHT = Image.fromarray(np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8)).resize((80, 60))
# How a camera stores an upright picture under each orientation: the inverse of what EXIF 2.3, 4.6.4 says to do.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def reopened(image: Image.Image, format_: str = "PNG", **options: Any) -> tuple[bytes, Image.Image]:
    out = io.BytesIO()
    image.save(out, format_, **options)
    opened = Image.open(io.BytesIO(out.getvalue()))
    opened.load()
    return out.getvalue(), opened


def hash_of(data: bytes) -> str:
    facts, grey = measure(data, 10**9)
    assert "error" not in facts
    return f"{int(phash_tiles(np.frombuffer(grey, np.uint8).reshape(1, 32, 32))[0]):016x}"


@pytest.mark.parametrize("orientation", STORED)
def test_each_orientation_is_the_same_upright_picture(orientation: int) -> None:
    turn = STORED[orientation]
    stored = UPRIGHT.transpose(turn) if turn is not None else UPRIGHT
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    data, opened = reopened(stored, exif=tags)
    facts, _ = measure(data, 10**9)
    assert (facts["width"], facts["height"], facts["orientation"]) == (80, 60, orientation)
    assert np.array_equal(np.asarray(upright_rgb(opened)), np.asarray(UPRIGHT))
    assert hash_of(data) == str(imagehash.phash(UPRIGHT))


@pytest.mark.parametrize("orientation", [0, 9, 1000])
def test_an_orientation_that_is_none_turns_nothing(orientation: int) -> None:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    data, _ = reopened(UPRIGHT, "JPEG", exif=tags)
    facts, _ = measure(data, 10**9)
    assert (facts["width"], facts["height"], facts["orientation"]) == (80, 60, 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_costs_no_picture() -> None:
    data, _ = reopened(UPRIGHT, "JPEG")
    body = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    facts, grey = measure(data[:2] + segment + data[2:], 10**9)
    assert (facts["orientation"], len(grey)) == (1, 1024)


def half_clear(mode: str) -> Image.Image:
    """Black, its right half transparent."""
    image = Image.new("RGBA", (40, 20), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (20, 0, 40, 20))
    return image.convert(mode)


def flat(image: Image.Image) -> tuple[Any, Any]:
    rgb = upright_rgb(image)
    assert rgb.mode == "RGB"
    return rgb.getpixel((5, 5)), rgb.getpixel((35, 15))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_white(mode: str) -> None:
    assert flat(half_clear(mode)) == ((0, 0, 0), (255, 255, 255))


def test_half_transparency_is_blended() -> None:
    assert upright_rgb(Image.new("RGBA", (4, 4), (0, 0, 0, 128))).getpixel((1, 1)) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_transparent_colour_is_white(mode: str) -> None:
    image = Image.new("RGB", (40, 20), (0, 0, 0))
    image.paste((255, 255, 0) if mode in {"P", "RGB"} else (255, 255, 255), (20, 0, 40, 20))
    image = image.convert(mode)
    clear = image.getpixel((5, 5))
    _, opened = reopened(image, transparency=clear)
    assert flat(opened)[0] == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65_535, 256, dtype=np.uint16)[None, :].repeat(8, 0)
    _, opened = reopened(Image.fromarray(ramp))
    assert opened.mode == "I;16"
    grey = np.asarray(upright_rgb(opened))[0, :, 0].astype(int)
    assert np.abs(grey - np.arange(256)).max() <= 1


def test_sixteen_bits_with_a_transparent_level() -> None:
    levels = np.full((20, 40), 30_000, np.uint16)
    levels[:, :20] = 0
    _, opened = reopened(Image.fromarray(levels), transparency=0)
    clear, solid = flat(opened)
    assert clear == (255, 255, 255)
    assert solid == pytest.approx((117, 117, 117), abs=1)


@pytest.mark.parametrize(
    ("mode", "format_"),
    [
        ("CMYK", "JPEG"),
        ("1", "PNG"),
        ("L", "JPEG"),
        ("P", "GIF"),
        ("YCbCr", "TIFF"),
        ("I;16", "TIFF"),
        ("RGBA", "WEBP"),
    ],
)
def test_hashes_equal_imagehash_in_every_mode(mode: str, format_: str) -> None:
    image = Image.fromarray(np.asarray(UPRIGHT.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else None
    data, opened = reopened(image or UPRIGHT.convert(mode), format_)
    assert hash_of(data) == str(imagehash.phash(upright_rgb(opened)))


def test_a_tile_is_what_imagehash_transforms() -> None:
    grey = UPRIGHT.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    assert tile(UPRIGHT) == grey.tobytes()
