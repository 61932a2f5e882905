"""Every outcome that `finished` promises, on real files."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from vlmdata.config import PixelsConfig
from vlmdata.export.pixels import CannotFinish, finished
from vlmdata.measure.pixels import upright_rgb


def seen(data: bytes) -> np.ndarray:
    """The pixels that every stage looks at."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(upright_rgb(image))


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO file")
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 40, "subsampling": 2}, {"restart_marker_blocks": 2}]
)
def test_an_upright_jpeg_keeps_its_stream_and_tells_nothing(make: Any, options: dict[str, Any]) -> None:
    original = make.jpeg(**options)
    picture = finished(original, 95)
    assert (picture.extension, picture.reencoded, picture.width, picture.height) == ("jpg", False, 64, 48)
    assert make.is_silent(picture)
    np.testing.assert_array_equal(seen(picture.data), seen(original))
    with Image.open(io.BytesIO(picture.data)) as image:
        assert "icc_profile" not in image.info
        assert image.info["jfif_version"] == (1, 1)
    scan = original.index(b"\xff\xda")
    assert original[scan : original.rindex(b"\xff\xd9")] in picture.data


def test_a_grey_jpeg_keeps_its_stream(make: Any) -> None:
    original = make.encode(make.photo(mode="L"), "JPEG", exif=make.exif())
    picture = finished(original, 95)
    assert not picture.reencoded and make.is_silent(picture)
    np.testing.assert_array_equal(seen(picture.data), seen(original))


def test_a_jpeg_that_adobe_marks_as_rgb_keeps_its_colours(make: Any) -> None:
    original = make.encode(make.photo(), "JPEG", keep_rgb=True, comment=make.secret)
    marked = original[:2] + make.jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0" + make.secret) + original[2:]
    picture = finished(marked, 95)
    assert not picture.reencoded and make.is_silent(picture) and b"Adobe" in picture.data
    np.testing.assert_array_equal(seen(picture.data), seen(marked))


def test_a_jfif_thumbnail_goes(make: Any) -> None:
    plain = make.encode(make.photo(), "JPEG")
    assert plain[2:4] == b"\xff\xe0"
    thumbnail = b"JFIF\0\x01\x01\0\0\x01\0\x01\x03\x02" + make.secret[:18]
    picture = finished(plain[:2] + make.jpeg_segment(0xE0, thumbnail) + plain[20:], 95)
    assert picture.data == plain


def test_only_the_first_picture_of_an_mpo_leaves(make: Any) -> None:
    other = make.photo().transpose(Image.Transpose.ROTATE_180)
    original = make.encode(make.photo(), "MPO", save_all=True, append_images=[other], exif=make.exif())
    picture = finished(original, 95)
    assert (picture.extension, picture.reencoded) == ("jpg", False) and make.is_silent(picture)
    np.testing.assert_array_equal(seen(picture.data), seen(original))
    assert picture.data.endswith(b"\xff\xd9") and len(picture.data) < len(original) / 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_comes_out_upright(make: Any, orientation: int, format_: str) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {}
    original = make.encode(make.photo(), format_, exif=make.exif(orientation), **options)
    picture = finished(original, 95)
    assert picture.reencoded == (orientation != 1 or format_ == "TIFF")
    assert (picture.width, picture.height) == ((64, 48) if orientation < 5 else (48, 64))
    assert make.is_silent(picture)
    difference = np.abs(seen(picture.data).astype(int) - seen(original))
    assert seen(picture.data).shape[:2] == (picture.height, picture.width)
    assert difference.max() <= (8 if picture.extension == "jpg" else 0)


def test_orientation_that_only_xmp_tells_is_applied(make: Any) -> None:
    plain = make.encode(make.photo(), "JPEG")
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="6"/>'
    picture = finished(plain[:2] + make.jpeg_segment(0xE1, xmp) + plain[2:], 95)
    assert (picture.width, picture.height, picture.reencoded) == (48, 64, True)


def test_an_orientation_that_does_not_exist_turns_nothing(make: Any) -> None:
    picture = finished(make.encode(make.photo(), "JPEG", exif=make.exif(9)), 95)
    assert not picture.reencoded and make.is_silent(picture)


def test_a_turned_jpeg_is_encoded_at_the_quality_asked_with_full_chroma(make: Any) -> None:
    original = make.encode(
        make.photo(), "JPEG", exif=make.exif(6), comment=make.secret, icc_profile=make.srgb_profile()
    )
    better, worse = finished(original, 95), finished(original, 50)
    assert len(better.data) > len(worse.data)
    with Image.open(io.BytesIO(better.data)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        assert JpegImagePlugin.get_sampling(image) == 0
        assert "icc_profile" not in image.info


def test_a_cmyk_jpeg_becomes_rgb(make: Any) -> None:
    original = make.encode(make.photo(mode="CMYK"), "JPEG", exif=make.exif())
    picture = finished(original, 95)
    assert (picture.extension, picture.reencoded) == ("jpg", True) and make.is_silent(picture)
    with Image.open(io.BytesIO(picture.data)) as image:
        assert image.mode == "RGB"
    assert np.abs(seen(picture.data).astype(int) - seen(original)).max() <= 8


def sixteen_bit() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "I;16"])
def test_an_opaque_png_keeps_its_stream(make: Any, mode: str) -> None:
    original = make.png(sixteen_bit() if mode == "I;16" else make.photo(mode=mode))
    picture = finished(original, 95)
    assert (picture.extension, picture.reencoded) == ("png", False) and make.is_silent(picture)
    assert picture.data.endswith(b"IEND\xaeB`\x82")
    with Image.open(io.BytesIO(picture.data)) as image, Image.open(io.BytesIO(original)) as before:
        assert image.mode == before.mode and "icc_profile" not in image.info
        np.testing.assert_array_equal(np.asarray(image), np.asarray(before))


def half_clear(mode: str) -> Image.Image:
    image = Image.new("RGBA", (64, 48), (200, 10, 10, 255))
    image.paste((0, 0, 200, 0), (0, 0, 32, 48))
    return image.convert(mode)


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_is_laid_on_white(make: Any, format_: str, mode: str) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {}
    picture = finished(make.encode(half_clear(mode), format_, exif=make.exif(), **options), 95)
    assert (picture.extension, picture.reencoded) == ("png", True) and make.is_silent(picture)
    with Image.open(io.BytesIO(picture.data)) as image:
        assert image.mode == "RGB" and image.getpixel((5, 5)) == (255, 255, 255) != image.getpixel((50, 5))


def test_a_transparent_palette_is_laid_on_white(make: Any) -> None:
    image = Image.new("P", (64, 48), 1)
    image.putpalette([0, 0, 0, 10, 200, 10])
    image.paste(0, (0, 0, 32, 48))
    for format_ in ("PNG", "GIF"):
        picture = finished(make.encode(image, format_, transparency=0), 95)
        assert (picture.extension, picture.reencoded) == ("png", True)
        assert seen(picture.data)[5, 5].tolist() == [255, 255, 255]
        assert seen(picture.data)[5, 50].tolist() == [10, 200, 10]


def test_a_colour_that_stands_for_clear_is_laid_on_white(make: Any) -> None:
    image = Image.new("RGB", (64, 48), (9, 9, 9))
    picture = finished(make.encode(image, "PNG", transparency=(9, 9, 9)), 95)
    assert picture.reencoded and (seen(picture.data) == 255).all()


def test_a_lossy_transparent_webp_becomes_a_jpeg(make: Any) -> None:
    picture = finished(make.encode(half_clear("RGBA"), "WEBP", quality=80), 95)
    assert (picture.extension, picture.reencoded) == ("jpg", True)
    assert seen(picture.data)[5, 5].min() > 250


@pytest.mark.parametrize(("format_", "extension"), [("PNG", "png"), ("WEBP", "webp")])
def test_an_alpha_channel_that_is_opaque_throughout_keeps_its_stream(make: Any, format_: str, extension: str) -> None:
    original = make.encode(make.photo(mode="RGBA"), format_)
    picture = finished(original, 95)
    assert (picture.extension, picture.reencoded) == (extension, False)
    np.testing.assert_array_equal(seen(picture.data), seen(original))


@pytest.mark.parametrize("options", [{}, {"lossless": True}])
@pytest.mark.parametrize("profile", [True, False])
def test_an_upright_webp_keeps_its_stream(make: Any, options: dict[str, Any], profile: bool) -> None:
    original = make.webp(icc_profile=make.srgb_profile() if profile else None, **options)
    picture = finished(original, 95)
    assert (picture.extension, picture.reencoded) == ("webp", False) and make.is_silent(picture)
    np.testing.assert_array_equal(seen(picture.data), seen(original))
    assert len(picture.data) == 8 + int.from_bytes(picture.data[4:8], "little")
    flags = picture.data[20]
    assert picture.data[12:16] == b"VP8X" and flags == 0


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_leaves(make: Any, format_: str) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    options = {"lossless": True} if format_ == "WEBP" else {}
    original = make.encode(frames[0], format_, save_all=True, append_images=frames[1:], **options)
    picture = finished(original, 95)
    assert (picture.extension, picture.reencoded) == ("png", True)
    with Image.open(io.BytesIO(picture.data)) as image:
        assert getattr(image, "n_frames", 1) == 1
    assert (seen(picture.data) == [250, 0, 0]).all()


@pytest.mark.parametrize(
    ("format_", "extension"),
    [("BMP", "png"), ("GIF", "png"), ("TIFF", "png"), ("PPM", "png"), ("JPEG2000", "jpg")],
)
def test_other_formats_are_encoded_once(make: Any, format_: str, extension: str) -> None:
    original = make.encode(make.photo(), format_)
    picture = finished(original, 95)
    assert (picture.extension, picture.reencoded) == (extension, True)
    assert np.abs(seen(picture.data).astype(int) - seen(original)).max() <= (0 if extension == "png" else 8)


def test_the_same_bytes_come_out_twice(make: Any) -> None:
    original = make.encode(make.photo(), "JPEG", exif=make.exif(6))
    assert finished(original, 95) == finished(original, 95)


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_picture_has_a_reason_without_addresses(data: bytes) -> None:
    with pytest.raises(CannotFinish) as refused:
        finished(data, 95)
    assert str(refused.value) and "0x" not in str(refused.value)


def test_a_program_is_never_run_to_draw_a_picture() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 300 300\n%%EndComments\nshowpage\n%%EOF\n"
    with Image.open(io.BytesIO(eps)) as image:
        assert image.format == "EPS"
    with pytest.raises(CannotFinish, match="EPS needs another program"):
        finished(eps, 95)


def tiff_of_16_bits(levels: np.ndarray) -> bytes:
    """A TIFF of (height, width, 3) of 16 bits, which Pillow reads and does not write."""
    height, width, _ = levels.shape
    data = levels.astype("<u2").tobytes()
    depths = 8 + 2 + 10 * 12 + 4
    tags = [(256, width), (257, height), (258, depths), (259, 1), (262, 2), (273, depths + 6), (277, 3), (278, height)]
    tags += [(279, len(data)), (284, 1)]
    entries = b"".join(struct.pack("<HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, v) for tag, v in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4
    return head + struct.pack("<3H", 16, 16, 16) + data


def test_16_bits_become_8_where_a_picture_is_encoded(make: Any) -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    grey = Image.fromarray(ramp * 257)
    small = PixelsConfig(mode="pad", side=20, position="top-left")
    expected = ramp[..., None].repeat(3, axis=2)
    sources = {
        ("reformatted",): (make.encode(grey, "TIFF"), PixelsConfig()),
        ("padded",): (make.encode(grey, "PNG"), small),
        ("reformatted", "padded"): (tiff_of_16_bits(expected * 257), small),
    }
    for changes, (original, asked) in sources.items():
        picture = finished(original, 95, asked)
        assert (picture.extension, picture.changes) == ("png", changes)
        np.testing.assert_array_equal(seen(picture.data)[:16, :16], expected)


def test_a_palette_with_several_degrees_of_transparency_is_laid_on_white(make: Any) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.putdata([0, 1, 2])
    picture = finished(make.encode(image, "PNG", transparency=bytes([0, 128, 255])), 95)
    assert picture.changes == ("composited",)
    clear, half, whole = seen(picture.data)[0].tolist()
    assert clear == [255, 255, 255] and whole == [0, 0, 200]
    assert np.abs(np.subtract(half, [127, 227, 127])).max() <= 1


STORIES: list[tuple[tuple[str, ...], Callable[[Any], bytes]]] = [
    ((), lambda make: make.jpeg()),
    (("turned",), lambda make: make.encode(make.photo(), "JPEG", exif=make.exif(6))),
    (("reformatted",), lambda make: make.encode(make.photo(), "BMP")),
    (("converted",), lambda make: make.encode(make.photo(mode="CMYK"), "JPEG")),
    (("composited",), lambda make: make.encode(half_clear("LA"), "PNG")),
    (("turned", "composited"), lambda make: make.encode(half_clear("RGBA"), "PNG", exif=make.exif(3))),
    (
        ("first_frame",),
        lambda make: make.encode(make.photo(), "WEBP", save_all=True, append_images=[half_clear("RGB")]),
    ),
    (("mended",), lambda make: make.encode(make.photo(), "JPEG").replace(b"\xff\xdb", b"\xff\xc4\0\2\xff\xdb", 1)),
]


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO file")
@pytest.mark.parametrize(("changes", "source"), STORIES)
def test_a_picture_says_how_it_came_about(make: Any, changes: tuple[str, ...], source: Callable[[Any], bytes]) -> None:
    picture = finished(source(make), 95)
    assert (picture.changes, picture.reencoded) == (changes, bool(changes))
