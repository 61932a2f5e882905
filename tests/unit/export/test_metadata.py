"""The strippers meet hostile bytes: they never crash, and never let the secret through."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmdata.export import jpeg, png, webp
from vlmdata.export.metadata import Malformed
from vlmdata.export.pixels import CannotFinish, finished

KINDS: dict[str, Callable[[bytes], bytes]] = {"jpeg": jpeg.strip, "png": png.strip, "webp": webp.strip}

cuts = st.floats(0, 1)
garbage = st.binary(max_size=40)
deep = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(data: bytes, at: float, until: float, junk: bytes) -> bytes:
    start, stop = sorted((int(at * len(data)), int(until * len(data))))
    return data[:start] + junk + data[min(stop, start + 60) :]


@pytest.mark.parametrize("kind", KINDS)
@deep
@given(at=cuts, until=cuts, junk=garbage)
def test_damage_is_refused_or_stripped(make: Any, kind: str, at: float, until: float, junk: bytes) -> None:
    hurt = damaged(getattr(make, kind)(), at, until, junk)
    try:
        stripped = KINDS[kind](hurt)
    except Malformed:
        return
    assert make.secret not in stripped


@pytest.mark.parametrize("kind", KINDS)
@deep
@given(at=cuts)
def test_a_truncated_file_is_refused_or_whole(make: Any, kind: str, at: float) -> None:
    whole = getattr(make, kind)()
    try:
        stripped = KINDS[kind](whole[: int(at * len(whole))])
    except Malformed:
        return
    assert stripped == KINDS[kind](whole)


@pytest.mark.parametrize("kind", KINDS)
@deep
@given(at=cuts, until=cuts, junk=garbage)
def test_a_damaged_picture_leaves_silent_or_not_at_all(
    make: Any, kind: str, at: float, until: float, junk: bytes
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = finished(damaged(getattr(make, kind)(), at, until, junk), 95)
        except CannotFinish:
            return
    assert make.secret not in picture.data


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(kind: str, data: bytes) -> None:
    with pytest.raises(Malformed):
        KINDS[kind](data)


@pytest.mark.parametrize("kind", KINDS)
def test_stripping_twice_changes_nothing_more(make: Any, kind: str) -> None:
    once = KINDS[kind](getattr(make, kind)())
    assert KINDS[kind](once) == once


def test_a_secret_that_poses_as_a_profile_goes(make: Any) -> None:
    plain = make.encode(make.photo(), "JPEG")
    posing = make.jpeg_segment(0xE2, b"ICC_PROFILE\0\x01\x01" + b"acsp".rjust(40) + make.secret * 9)
    assert jpeg.strip(plain[:2] + posing + plain[2:]) == plain


def test_a_profile_behind_which_a_secret_rides_goes(make: Any) -> None:
    image = make.encode(make.photo(), "WEBP", icc_profile=make.srgb_profile() + make.secret)
    assert make.secret in image and b"ICCP" not in webp.strip(image)
    image = make.encode(make.photo(), "PNG", icc_profile=make.srgb_profile() + make.secret)
    assert b"iCCP" in image and b"iCCP" not in png.strip(image)


def test_a_profile_that_unpacks_to_no_end_goes(make: Any) -> None:
    image = make.encode(make.photo(), "PNG", icc_profile=b"\0" * (1 << 25))
    assert b"iCCP" in image and b"iCCP" not in png.strip(image)


def test_a_secret_within_a_decoding_segment_makes_the_picture_encoded_anew(make: Any) -> None:
    plain = make.encode(make.photo(), "JPEG")
    for marker in (0xDB, 0xC4, 0xDD, 0xCC, 0xF0, 0x01):
        hidden = plain[:2] + make.jpeg_segment(marker, b"\0" + make.secret) + plain[2:]
        with pytest.raises(Malformed):
            jpeg.strip(hidden)


def test_a_comment_between_two_scans_goes(make: Any) -> None:
    progressive = make.encode(make.photo(), "JPEG", progressive=True)
    second = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
    table = progressive.rindex(b"\xff\xc4", 0, second)
    told = progressive[:table] + make.jpeg_segment(0xFE, make.secret) + progressive[table:]
    assert jpeg.strip(told) == progressive


def test_a_megabyte_of_fill_bytes_is_read_in_no_time(make: Any) -> None:
    plain = make.encode(make.photo(), "JPEG")
    fill = b"\xff" * (1 << 20)
    assert jpeg.strip(plain[:2] + fill + plain[2:]) == plain
    assert jpeg.strip(plain[:-2] + fill + b"\0" + plain[-2:]) == plain[:-2] + fill + b"\0" + plain[-2:]


def test_a_comment_right_behind_a_scan_header_that_ends_like_a_marker_goes(make: Any) -> None:
    plain = make.encode(make.photo(), "JPEG")
    header = plain.index(b"\xff\xda")
    start = header + 2 + int.from_bytes(plain[header + 2 : header + 4], "big")
    hurt = plain[: start - 1] + b"\xff" + make.jpeg_segment(0xFE, make.secret) + plain[start:]
    with pytest.raises(Malformed):
        jpeg.strip(hurt)


def test_an_unknown_critical_chunk_is_refused(make: Any) -> None:
    image = make.encode(make.photo(), "PNG")
    with pytest.raises(Malformed):
        png.strip(image[:33] + make.png_chunk(b"CgBI", b"") + image[33:])


def test_webp_knows_lossless_from_lossy(make: Any) -> None:
    frames = {"save_all": True, "append_images": [make.photo(mode="L")]}
    for options in ({}, frames):
        assert webp.is_lossless(make.encode(make.photo(), "WEBP", lossless=True, **options))
        assert not webp.is_lossless(make.encode(make.photo(), "WEBP", **options))


def test_a_stripped_animation_would_not_be_passed_through(make: Any) -> None:
    moving = make.encode(make.photo(), "WEBP", save_all=True, append_images=[make.photo(mode="L")])
    with pytest.raises(Malformed):
        webp.strip(moving)
    with Image.open(io.BytesIO(moving)) as image:
        assert getattr(image, "n_frames", 1) == 2
