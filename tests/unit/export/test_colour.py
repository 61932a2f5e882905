"""Colours leave as sRGB: each outcome that `pixels` promises, judged by formulas of its own."""

from __future__ import annotations

import io
import itertools
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmdata.export import icc
from vlmdata.export.icc import Chromaticities, grey_profile, rgb_profile
from vlmdata.export.pixels import finished
from vlmdata.measure.pixels import upright_rgb

Pixels = npt.NDArray[np.uint8]

D65 = (0.3127, 0.329)
DISPLAY_P3 = Chromaticities((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), D65)
ADOBE_RGB = Chromaticities((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65)
SRGB = Chromaticities((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), D65)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
P3_PROFILE = rgb_profile(DISPLAY_P3, SRGB_CURVE)

# Linear Display P3 and Adobe RGB to linear sRGB, as CSS Color 4 and Adobe's specification have them.
P3_TO_SRGB = np.array([[1.2249, -0.2249, 0.0], [-0.0421, 1.0421, 0.0], [-0.0196, -0.0786, 1.0983]])
ADOBE_TO_SRGB = np.array([[1.3984, -0.3984, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429, 1.0429]])
TO_LINEAR = {
    "srgb": lambda v: np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4),
    "2.2": lambda v: v**2.2,
    "1.8": lambda v: v**1.8,
}


def as_srgb(pixels: Pixels, curve: str, matrix: Any = None) -> npt.NDArray[np.float64]:
    """What sRGB has for these colours, by the standards' formulas."""
    linear = TO_LINEAR[curve](pixels / 255)
    linear = np.clip(linear if matrix is None else linear @ matrix.T, 0, 1)
    return np.asarray(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def colours(levels: tuple[int, ...] = (0, 40, 90, 128, 200, 255)) -> Pixels:
    """A picture of all combinations of some levels, a patch of 8 px each, so that JPEG keeps them apart."""
    patches = np.array(list(itertools.product(levels, repeat=3)), np.uint8).reshape(len(levels), -1, 3)
    return patches.repeat(8, axis=0).repeat(8, axis=1)


def pixels_of(data: bytes) -> Pixels:
    """The pixels as they lie in a file that has no profile."""
    with Image.open(io.BytesIO(data)) as image:
        assert not {"icc_profile", "gamma", "chromaticity", "srgb"}.intersection(image.info)
        return np.asarray(image.convert("RGB"))


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def chromaticities(colours: Chromaticities) -> bytes:
    """The body of a cHRM."""
    flat = itertools.chain(colours.white, *colours[:3])
    return struct.pack(">8I", *(round(value * 100_000) for value in flat))


@pytest.mark.parametrize(("format_", "near"), [("PNG", 1), ("TIFF", 1), ("WEBP", 1), ("JPEG", 8)])
@pytest.mark.parametrize(
    ("profile", "curve", "matrix"),
    [
        (P3_PROFILE, "srgb", P3_TO_SRGB),
        (rgb_profile(ADOBE_RGB, (2.2,)), "2.2", ADOBE_TO_SRGB),
        (rgb_profile(SRGB, (2.2,)), "2.2", None),
    ],
)
def test_a_profile_of_other_colours_is_converted(
    make: Any, format_: str, near: int, profile: bytes, curve: str, matrix: Any
) -> None:
    faithful: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = faithful.get(format_, {})
    picture = finished(make.encode(Image.fromarray(colours()), format_, icc_profile=profile, **options), 100)
    assert picture.changes == (("reformatted", "converted") if format_ == "TIFF" else ("converted",))
    assert np.abs(pixels_of(picture.data) - as_srgb(colours(), curve, matrix)).max() <= near


def test_a_profile_is_known_by_what_it_does_and_not_by_its_name(make: Any) -> None:
    image = Image.fromarray(colours())
    for profile in (make.srgb_profile(), rgb_profile(SRGB, SRGB_CURVE), make.srgb_profile().replace(b"sRGB", b"Nobo")):
        original = make.encode(image, "PNG", icc_profile=profile)
        picture = finished(original, 95)
        assert picture.changes == ()
        np.testing.assert_array_equal(pixels_of(picture.data), colours())
    named = P3_PROFILE + b"sRGB IEC61966-2.1"
    assert finished(make.encode(image, "PNG", icc_profile=named), 95).changes == ("converted",)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_a_grey_profile_is_converted(make: Any, mode: str) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    deep = Image.fromarray(levels.astype(np.uint16) * 257)
    image = deep if mode == "I;16" else Image.fromarray(levels).convert(mode)
    flat = np.asarray(image.convert("L")) if mode == "1" else levels
    picture = finished(make.encode(image, "PNG", icc_profile=grey_profile((1.8,))), 95)
    assert picture.changes == ("converted",)
    expected = as_srgb(flat[..., None].repeat(3, axis=2), "1.8")
    assert np.abs(pixels_of(picture.data) - expected).max() <= 2


def test_a_grey_profile_that_is_srgb_s_axis_passes(make: Any) -> None:
    original = make.encode(make.photo(mode="L"), "JPEG", icc_profile=grey_profile(SRGB_CURVE))
    picture = finished(original, 95)
    assert picture.changes == ()
    np.testing.assert_array_equal(pixels_of(picture.data), pixels_of(make.encode(make.photo(mode="L"), "JPEG")))


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_what_is_transparent_is_converted_and_then_laid_on_white(make: Any, format_: str) -> None:
    image = Image.fromarray(colours()).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 8, 8))
    options = {"lossless": True} if format_ == "WEBP" else {}
    picture = finished(make.encode(image, format_, icc_profile=P3_PROFILE, **options), 95)
    assert picture.changes == ("converted", "composited")
    expected = as_srgb(colours(), "srgb", P3_TO_SRGB)
    expected[:8, :8] = 255
    assert np.abs(pixels_of(picture.data) - expected).max() <= 1


def test_a_palette_is_converted(make: Any) -> None:
    image = Image.fromarray(colours((0, 90, 255))).quantize(27)
    before = np.asarray(image.convert("RGB"))
    picture = finished(make.encode(image, "PNG", icc_profile=P3_PROFILE), 95)
    assert picture.changes == ("converted",)
    assert np.abs(pixels_of(picture.data) - as_srgb(before, "srgb", P3_TO_SRGB)).max() <= 1


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_picture_is_converted_and_upright(make: Any, orientation: int) -> None:
    image = Image.fromarray(colours())
    original = make.encode(image, "PNG", icc_profile=P3_PROFILE, exif=make.exif(orientation))
    picture = finished(original, 95)
    assert picture.changes == ("turned", "converted")
    with Image.open(io.BytesIO(original)) as opened:
        expected = as_srgb(np.asarray(upright_rgb(opened)), "srgb", P3_TO_SRGB)
    assert np.abs(pixels_of(picture.data) - expected).max() <= 1


def cmyk_profile() -> bytes:
    """A printer's profile (lut8) of 2 grid points: paper is white, K black, and cyan ink, against all custom, red."""
    corners = []
    for c, m, y, k in itertools.product((0, 1), repeat=4):
        light = 100 * (1 - k) * (1 - (c + m + y) / 4)
        a, b = 60 * (1 - k) * (c - m), 40 * (1 - k) * (c - y)
        corners += [round(light * 2.55), round(a + 128), round(b + 128)]
    straight = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (row == column) for row in range(3) for column in range(3)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + 4 * straight + bytes(corners) + 3 * straight
    whole = icc._profile(b"CMYK", {b"A2B0": table})
    return whole[:12] + b"prtrCMYKLab " + whole[24:]


def test_cmyk_is_converted_by_its_own_profile(make: Any) -> None:
    inks = {(0, 0, 0, 0): (255, 255, 255), (0, 0, 0, 255): (0, 0, 0)}
    for format_, ink in itertools.product(("JPEG", "TIFF"), [*inks, (255, 0, 0, 0)]):
        original = make.encode(Image.new("CMYK", (32, 32), ink), format_, icc_profile=cmyk_profile())
        picture = finished(original, 95)
        assert "converted" in picture.changes
        red, green, blue = pixels_of(picture.data)[16, 16].tolist()
        if ink in inks:
            assert np.abs(np.subtract((red, green, blue), inks[ink])).max() <= 2
        else:
            # CIELAB 75, 60, 40 is a light red.
            assert red > 240 and 110 < green < 150 and 90 < blue < 130


@pytest.mark.parametrize("profile", [None, b"no profile", cmyk_profile()[:400], P3_PROFILE])
def test_cmyk_without_a_sound_profile_of_its_own_is_converted_by_pillow_s_rule(make: Any, profile: Any) -> None:
    original = make.encode(Image.new("CMYK", (32, 32), (255, 0, 0, 0)), "JPEG", icc_profile=profile)
    picture = finished(original, 95)
    assert picture.changes == ("converted",)
    assert np.abs(np.subtract(pixels_of(picture.data)[16, 16], (0, 255, 255), dtype=int)).max() <= 2


def endless_profile(steps: int) -> bytes:
    """P3 that also has a program of so many steps for each colour, all of which share one place in the file."""
    step = b"matf\0\0\0\0" + struct.pack(">HH12f", 3, 3, *np.eye(3).flatten(), 0, 0, 0)
    places = struct.pack(">II", 16 + 8 * steps, len(step)) * steps
    program = b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, steps) + places + step
    return icc._profile(b"RGB ", {b"D2B0": program, b"D2B1": program})


UNUSED = {
    "no profile at all": b"no profile",
    "empty": b"\0" * 128,
    "cut off": P3_PROFILE[:200],
    "too large": P3_PROFILE + b"\0" * (4 << 20),
    "for CMYK": cmyk_profile(),
    "for grey": grey_profile((1.8,)),
    "of a device link": P3_PROFILE[:12] + b"link" + P3_PROFILE[16:],
    "without colorants": P3_PROFILE.replace(b"gXYZ", b"gYXZ"),
    "with a program that would run for minutes": endless_profile(200_000),
}


@pytest.mark.parametrize("what", UNUSED)
@pytest.mark.parametrize("format_", ["TIFF", "WEBP", "JPEG"])
def test_a_profile_that_cannot_be_used_is_not(make: Any, what: str, format_: str) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {}
    original = make.encode(make.photo(), format_, icc_profile=UNUSED[what], **options)
    picture = finished(original, 95)
    assert picture.changes == (("reformatted",) if format_ == "TIFF" else ())
    with Image.open(io.BytesIO(original)) as image:
        np.testing.assert_array_equal(pixels_of(picture.data), np.asarray(image.convert("RGB")))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.sampled_from([P3_PROFILE, cmyk_profile(), grey_profile((1.8,)), endless_profile(1)]),
    at=st.floats(0, 1),
    junk=st.binary(min_size=1, max_size=12),
)
def test_a_damaged_profile_costs_at_most_its_colours(make: Any, which: bytes, at: float, junk: bytes) -> None:
    start = int(at * len(which))
    hurt = which[:start] + junk + which[start + len(junk) :]
    mode = {b"CMYK": "CMYK", b"GRAY": "L"}.get(which[16:20], "RGB")
    picture = finished(make.encode(make.photo(8, 8, mode), "TIFF", icc_profile=hurt), 95)
    assert (picture.width, picture.height) == (8, 8) and pixels_of(picture.data).shape == (8, 8, 3)


CICP_P3, CICP_SRGB, CICP_HDR = b"\x0c\x0d\0\x01", b"\x01\x0d\0\x01", b"\x09\x10\0\x01"
FROM_P3 = ("srgb", P3_TO_SRGB)
CHUNKS: dict[str, tuple[dict[bytes, bytes], bytes | None, Any]] = {
    "sRGB": ({b"sRGB": b"\0"}, None, None),
    "sRGB, and what goes with it": ({b"sRGB": b"\0", b"gAMA": struct.pack(">I", 45455)}, None, None),
    "sRGB beside another gAMA": ({b"sRGB": b"\0", b"gAMA": struct.pack(">I", 55556)}, None, None),
    "gAMA as sRGB has it": ({b"gAMA": struct.pack(">I", 45455)}, None, None),
    "gAMA and cHRM as sRGB has them": (
        {b"gAMA": struct.pack(">I", 45455), b"cHRM": chromaticities(SRGB)},
        None,
        None,
    ),
    "gAMA of 1/1.8": ({b"gAMA": struct.pack(">I", 55556)}, None, ("1.8", None)),
    "gAMA and cHRM of Adobe RGB": (
        {b"gAMA": struct.pack(">I", 45455), b"cHRM": chromaticities(ADOBE_RGB)},
        None,
        ("2.2", ADOBE_TO_SRGB),
    ),
    "cHRM alone": ({b"cHRM": chromaticities(DISPLAY_P3)}, None, FROM_P3),
    "cHRM of no light": ({b"cHRM": b"\0" * 32}, None, None),
    "cHRM on a line": ({b"cHRM": struct.pack(">8I", *[30_000] * 8)}, None, None),
    "gAMA of nothing": ({b"gAMA": b"\0" * 4}, None, None),
    "gAMA beyond all use": ({b"gAMA": b"\xff" * 4}, None, None),
    "cICP of Display P3": ({b"cICP": CICP_P3}, None, FROM_P3),
    "cICP before a profile": ({b"cICP": CICP_P3}, rgb_profile(ADOBE_RGB, (2.2,)), FROM_P3),
    "cICP of sRGB before a profile": ({b"cICP": CICP_SRGB}, rgb_profile(ADOBE_RGB, (2.2,)), None),
    "cICP of HDR": ({b"cICP": CICP_HDR}, None, None),
    "cICP of HDR, with a profile": ({b"cICP": CICP_HDR}, P3_PROFILE, FROM_P3),
    "a profile before gAMA": ({b"gAMA": struct.pack(">I", 55556)}, P3_PROFILE, FROM_P3),
}


@pytest.mark.parametrize("what", CHUNKS)
def test_the_chunks_of_a_png_say_its_colours(make: Any, what: str) -> None:
    chunks, profile, expected = CHUNKS[what]
    plain = make.encode(Image.fromarray(colours()), "PNG", icc_profile=profile)
    picture = finished(with_chunks(plain, *(make.png_chunk(*chunk) for chunk in chunks.items())), 95)
    assert picture.changes == (("converted",) if expected else ())
    wanted = as_srgb(colours(), *expected) if expected else colours()
    assert np.abs(pixels_of(picture.data) - wanted).max() <= 1
    assert not [name for name in (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP") if name in picture.data]


def test_a_grey_png_s_gamma_counts(make: Any) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    plain = make.encode(Image.fromarray(levels), "PNG")
    picture = finished(with_chunks(plain, make.png_chunk(b"gAMA", struct.pack(">I", 55556))), 95)
    assert picture.changes == ("converted",)
    assert np.abs(pixels_of(picture.data) - as_srgb(levels[..., None].repeat(3, axis=2), "1.8")).max() <= 2


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(min_size=32, max_size=32), gamma=st.binary(min_size=4, max_size=4))
def test_any_chromaticities_and_gamma_give_a_picture(make: Any, body: bytes, gamma: bytes) -> None:
    chunks = [make.png_chunk(b"cHRM", body), make.png_chunk(b"gAMA", gamma)]
    picture = finished(with_chunks(make.encode(make.photo(8, 8), "PNG"), *chunks), 95)
    assert pixels_of(picture.data).shape == (8, 8, 3)


def test_a_16_bit_rgb_picture_is_converted_in_8_bits(make: Any) -> None:
    rows = np.arange(256, dtype=">u2").repeat(3).reshape(1, 256, 3) * 257
    raw = b"\0" + rows.tobytes()
    deep = png_of(make, 256, 1, 16, 2, raw)
    plain = finished(deep, 95)
    assert plain.changes == () and plain.data[24] == 16
    picture = finished(with_chunks(deep, make.png_chunk(b"gAMA", struct.pack(">I", 55556))), 95)
    assert picture.changes == ("converted",) and picture.data[24] == 8
    expected = as_srgb((rows // 257).astype(np.uint8), "1.8")
    assert np.abs(pixels_of(picture.data) - expected).max() <= 1


def png_of(make: Any, width: int, height: int, depth: int, kind: int, raw: bytes) -> bytes:
    """A PNG of rows as they are, of a depth that Pillow does not write."""
    head = make.png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = make.png_chunk(b"IDAT", zlib.compress(raw))
    return b"".join([b"\x89PNG\r\n\x1a\n", head, body, make.png_chunk(b"IEND", b"")])


def test_threads_that_share_a_profile_make_the_same_bytes(make: Any) -> None:
    originals = [
        make.encode(make.photo(200 + n, 150), "PNG", icc_profile=(P3_PROFILE, rgb_profile(ADOBE_RGB, (2.2,)))[n % 2])
        for n in range(24)
    ]
    alone = [finished(original, 95).data for original in originals]
    with ThreadPoolExecutor(8) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [picture.data for picture in pool.map(lambda one: finished(one, 95), originals)] == alone
