"""Pictures made to fit: never enlarged, never distorted, and never anything else than was asked for."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmdata.config import PixelsConfig
from vlmdata.export.fit import corner, scaled
from vlmdata.export.pixels import finished
from vlmdata.measure.pixels import upright_rgb

POSITIONS = {
    "top-left": (0, 0),
    "top": (50, 0),
    "top-right": (101, 0),
    "left": (0, 20),
    "center": (50, 20),
    "right": (101, 20),
    "bottom-left": (0, 41),
    "bottom": (50, 41),
    "bottom-right": (101, 41),
}
FILTERS = ("lanczos", "bicubic", "bilinear", "hamming", "box", "nearest")
sides = st.integers(1, 5_000)
of_pictures = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def asks(draw: st.DrawFn, largest: int = 100) -> PixelsConfig:
    """Any config of any mode."""
    mode = draw(st.sampled_from(["keep", "resize", "pad"]))
    formats = draw(st.lists(st.sampled_from(["jpg", "png", "webp"]), min_size=1, unique=True))
    raw: dict[str, Any] = {"mode": mode, "formats": formats, "encode_as": draw(st.sampled_from(["auto", *formats]))}
    if mode != "keep":
        raw |= {"side": draw(st.integers(1, largest)), "interpolation": draw(st.sampled_from(FILTERS))}
    if mode == "resize":
        raw["by"] = draw(st.sampled_from(["longest", "shorter"]))
    if mode == "pad":
        raw |= {"position": draw(st.sampled_from(sorted(POSITIONS))), "color": draw(st.sampled_from(["white", "#123"]))}
    return PixelsConfig.model_validate(raw)


def opened(data: bytes) -> Image.Image:
    """The upright picture, decoded."""
    with Image.open(io.BytesIO(data)) as image:
        return upright_rgb(image).copy()


@given(width=sides, height=sides, side=sides, by=st.sampled_from(["longest", "shorter"]))
def test_a_picture_is_never_enlarged_and_its_shape_is_within_a_pixel(
    width: int, height: int, side: int, by: str
) -> None:
    config = PixelsConfig.model_validate({"mode": "resize", "side": side, "by": by})
    new_width, new_height = scaled((width, height), config)
    assert 1 <= new_width <= width and 1 <= new_height <= height
    governs = max if by == "longest" else min
    assert governs(new_width, new_height) == min(side, governs(width, height))
    scale = governs(new_width, new_height) / governs(width, height)
    for new, exact in ((new_width, width * scale), (new_height, height * scale)):
        assert abs(new - exact) <= 0.5 + 1e-9 or (new == 1 and exact < 1)


@of_pictures
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    format_=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF"]),
    orientation=st.integers(1, 8),
    asked=asks(),
)
def test_whatever_is_asked_for_is_what_comes_out(
    make: Any, width: int, height: int, format_: str, orientation: int, asked: PixelsConfig
) -> None:
    more = {"comment": make.secret} if format_ == "JPEG" else {"lossless": True} if format_ == "WEBP" else {}
    original = make.encode(make.photo(width, height), format_, exif=make.exif(orientation), **more)
    picture = finished(original, 95, asked)
    source, found = opened(original), opened(picture.data)
    size = scaled(source.size, asked)
    assert picture.extension in asked.formats and make.is_silent(picture)
    assert found.size == (picture.width, picture.height) == ((asked.side,) * 2 if asked.mode == "pad" else size)
    assert ("resized" in picture.changes) == (size != source.size)
    assert ("padded" in picture.changes) == (asked.mode == "pad" and size != found.size)
    wanted = source.resize(size, Image.Resampling[asked.interpolation.upper()]) if size != source.size else source
    place = corner(size, found.size, asked.position)
    inside = np.asarray(found)[place[1] : place[1] + size[1], place[0] : place[0] + size[0]]
    if picture.extension == "png" or not picture.reencoded:
        np.testing.assert_array_equal(inside, np.asarray(wanted))
        around = np.asarray(found).astype(int).sum(axis=(0, 1)) - inside.astype(int).sum(axis=(0, 1))
        color = [int(asked.color[start : start + 2], 16) for start in (1, 3, 5)]
        assert around.tolist() == [(found.width * found.height - size[0] * size[1]) * level for level in color]


@pytest.mark.parametrize("position", POSITIONS)
def test_a_position_is_where_the_picture_lies(make: Any, position: str) -> None:
    assert corner((20, 80), (121, 121), position) == POSITIONS[position]
    asked = PixelsConfig.model_validate({"mode": "pad", "side": 121, "position": position, "color": "#102030"})
    picture = finished(make.encode(make.photo(20, 80), "PNG"), 95, asked)
    assert (picture.width, picture.height, picture.changes) == (121, 121, ("padded",))
    x, y = POSITIONS[position]
    found = np.asarray(opened(picture.data)).copy()
    np.testing.assert_array_equal(found[y : y + 80, x : x + 20], np.asarray(make.photo(20, 80)))
    found[y : y + 80, x : x + 20] = (0x10, 0x20, 0x30)
    assert (found == (0x10, 0x20, 0x30)).all()


@pytest.mark.parametrize("name", FILTERS)
def test_the_interpolation_named_is_the_one_used(make: Any, name: str) -> None:
    asked = PixelsConfig.model_validate({"mode": "resize", "side": 40, "interpolation": name})
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (75, 100, 3), np.uint8))
    picture = finished(make.encode(noise, "PNG"), 95, asked)
    assert (picture.width, picture.height, picture.changes) == (40, 30, ("resized",))
    found = np.asarray(opened(picture.data))
    equal = {
        other: np.array_equal(found, np.asarray(noise.resize((40, 30), Image.Resampling[other.upper()])))
        for other in FILTERS
    }
    assert equal == {other: other == name for other in FILTERS}


@pytest.mark.parametrize(
    "asked",
    [{"mode": "resize", "side": 64}, {"mode": "resize", "side": 48, "by": "shorter"}, {"mode": "resize", "side": 900}],
)
def test_a_picture_that_is_small_enough_keeps_its_stream(make: Any, asked: dict[str, Any]) -> None:
    picture = finished(make.jpeg(), 95, PixelsConfig.model_validate(asked))
    assert picture == finished(make.jpeg(), 95) and not picture.reencoded


def test_a_square_of_the_side_asked_for_keeps_its_stream(make: Any) -> None:
    original = make.encode(make.photo(64, 64), "JPEG")
    assert finished(original, 95, PixelsConfig(mode="pad", side=64)).changes == ()
    assert finished(original, 95, PixelsConfig(mode="pad", side=65)).changes == ("padded",)
    assert finished(original, 95, PixelsConfig(mode="pad", side=63)).changes == ("resized",)


def test_what_is_transparent_is_laid_on_white_whatever_the_square_s_colour(make: Any) -> None:
    clear = Image.new("RGBA", (10, 20), (255, 0, 0, 0))
    asked = PixelsConfig(mode="pad", side=20, color="#000000", position="left")
    picture = finished(make.encode(clear, "PNG"), 95, asked)
    assert picture.changes == ("padded", "composited")
    found = np.asarray(opened(picture.data))
    assert (found[:, :10] == 255).all() and (found[:, 10:] == 0).all()


ENCODINGS = [
    # formats, encode_as, of a lossless source, of a lossy one
    (["jpg", "png", "webp"], "auto", "png", "jpg"),
    (["png", "webp"], "auto", "png", "webp"),
    (["jpg", "webp"], "auto", "webp", "jpg"),
    (["jpg"], "auto", "jpg", "jpg"),
    (["png"], "auto", "png", "png"),
    (["jpg", "png", "webp"], "jpg", "jpg", "jpg"),
    (["jpg", "png", "webp"], "png", "png", "png"),
    (["jpg", "png", "webp"], "webp", "webp", "webp"),
]


@pytest.mark.parametrize(("formats", "encode_as", "lossless", "lossy"), ENCODINGS)
def test_what_is_encoded_becomes_what_was_asked_for(
    make: Any, formats: list[str], encode_as: str, lossless: str, lossy: str
) -> None:
    asked = PixelsConfig.model_validate({"formats": formats, "encode_as": encode_as})
    kinds = {"PNG": lossless, "BMP": lossless, "TIFF": lossless, "JPEG": lossy}
    for kind, extension in kinds.items():
        turned = {"exif": make.exif(6)} if kind != "BMP" else {}
        picture = finished(make.encode(make.photo(), kind, **turned), 95, asked)
        assert picture.extension == extension and picture.reencoded
        with Image.open(io.BytesIO(picture.data)) as image:
            assert image.format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension]
        exact = extension == "png" or (extension == "webp" and kind != "JPEG")
        original = np.asarray(opened(make.encode(make.photo(), kind, **turned))).astype(int)
        difference = np.abs(np.asarray(opened(picture.data)) - original)
        assert difference.max() == 0 if exact else difference.mean() < 4


def test_a_picture_of_a_format_that_may_not_leave_becomes_another(make: Any) -> None:
    asked = PixelsConfig(formats=("jpg",))
    assert finished(make.encode(make.photo(), "PNG"), 95, asked).changes == ("reformatted",)
    assert finished(make.jpeg(), 95, asked).changes == ()


@pytest.mark.parametrize("encode_as", ["jpg", "webp"])
def test_the_quality_asked_for_counts_for_what_is_lossy(make: Any, encode_as: str) -> None:
    asked = PixelsConfig.model_validate({"encode_as": encode_as, "mode": "resize", "side": 50})
    better, worse = (finished(make.encode(make.photo(), "JPEG"), quality, asked) for quality in (95, 50))
    assert len(better.data) > len(worse.data)


def test_threads_make_the_same_bytes_as_one_alone(make: Any) -> None:
    asked = PixelsConfig(mode="pad", side=90, position="bottom-right")
    originals = [make.encode(make.photo(80 + n, 120 - n), "JPEG", exif=make.exif(1 + n % 8)) for n in range(32)]
    alone = [finished(original, 90, asked).data for original in originals]
    with ThreadPoolExecutor(8) as pool:
        assert [picture.data for picture in pool.map(lambda one: finished(one, 90, asked), originals)] == alone
