"""What is sent of a picture."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmdata.captioning.pictures import Picture, UnsendablePicture, for_sending

ORIENTATION = 0x0112
GPS = 0x8825


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    sink = BytesIO()
    image.save(sink, format_, **options)
    return sink.getvalue()


def decoded(picture: Picture) -> Image.Image:
    image = Image.open(BytesIO(picture.data))
    image.load()
    return image


def halves(width: int, height: int) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    return image


@pytest.mark.parametrize(("format_", "media"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")])
def test_what_will_do_is_sent_untouched(format_: str, media: str) -> None:
    data = encoded(halves(40, 30), format_)
    assert for_sending(data, 40) == Picture(data, media, 40, 30)


@pytest.mark.parametrize("format_", ["GIF", "BMP", "TIFF"])
def test_other_formats_become_jpeg(format_: str) -> None:
    picture = for_sending(encoded(halves(40, 30), format_), 100)
    assert (picture.media_type, decoded(picture).format, decoded(picture).size) == ("image/jpeg", "JPEG", (40, 30))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture = for_sending(encoded(halves(64, 32), "JPEG", exif=exif), 100)
    image = decoded(picture)
    assert image.size == ((32, 64) if orientation >= 5 else (64, 32)) == (picture.width, picture.height)
    corners = {2: "blue", 3: "blue", 4: "red", 5: "red", 6: "red", 7: "blue", 8: "blue"}
    red, _, blue = image.getpixel((4, 4))  # type: ignore[misc]
    assert (red > blue) == (corners[orientation] == "red")


def test_places_and_people_are_not_sent() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    exif.get_ifd(GPS)[1] = "N"
    data = encoded(halves(64, 32), "JPEG", exif=exif)
    picture = for_sending(data, 100)
    assert picture.data != data and not decoded(picture).getexif().get_ifd(GPS)


def test_transparency_goes_on_white() -> None:
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    for data in (encoded(image, "PNG"), encoded(image, "WEBP", lossless=True)):
        picture = for_sending(data, 100)
        assert picture.media_type == "image/jpeg" and min(decoded(picture).getpixel((10, 10))) >= 250  # type: ignore[type-var]


def test_animations_are_sent_as_their_first_frame() -> None:
    data = encoded(halves(20, 20), "WEBP", save_all=True, append_images=[Image.new("RGB", (20, 20), "green")])
    picture = for_sending(data, 100)
    assert picture.media_type == "image/jpeg" and getattr(decoded(picture), "n_frames", 1) == 1


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 300), height=st.integers(1, 300), max_side=st.integers(1, 200), orientation=st.integers(0, 9)
)
def test_size_is_bounded_shape_kept_and_nothing_enlarged(
    width: int, height: int, max_side: int, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture = for_sending(encoded(Image.new("RGB", (width, height)), "JPEG", exif=exif), max_side)
    width, height = (height, width) if 5 <= orientation <= 8 else (width, height)
    assert decoded(picture).size == (picture.width, picture.height)
    longest = max(width, height)
    scale = min(1.0, max_side / longest)
    assert max(picture.width, picture.height) == min(longest, max_side)
    assert abs(picture.width - width * scale) <= 0.5 or picture.width == 1
    assert abs(picture.height - height * scale) <= 0.5 or picture.height == 1


@pytest.mark.parametrize("data", [b"", b"no picture", encoded(halves(64, 64), "JPEG")[:300]])
def test_what_does_not_decode_is_said(data: bytes) -> None:
    with pytest.raises(UnsendablePicture):
        for_sending(data, 100)


def test_pillows_pixel_limit_stays_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnsendablePicture, match="exceeds limit"):
        for_sending(encoded(halves(64, 64), "PNG"), 100)
