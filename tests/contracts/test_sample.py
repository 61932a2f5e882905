"""The sample that ships with the project: good pictures, and every trouble that is said to be in it."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import imagehash
import pytest
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

SAMPLE = Path(__file__).parents[2] / "examples" / "stamps"
PICTURES = SAMPLE / "pictures"
MAX_BYTES = 11_000_000
MIN_SIDE = 224
RADIUS = 8
MAX_CAPTION = 4_000


def upright(path: Path) -> Image.Image:
    """The whole picture as the pipeline sees it: upright, on white, RGB."""
    with Image.open(path) as image:
        rgba = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    white.alpha_composite(rgba)
    return white.convert("RGB")


def load_troubles(code: str | None = None, level: str = "sample") -> list[dict[str, Any]]:
    troubles: list[dict[str, Any]] = json.loads((SAMPLE / "troubles.json").read_text(encoding="utf-8"))
    return [t for t in troubles if t["level"] == level and (code is None or t["code"] == code)]


def trouble_file(code: str) -> Path:
    """The one file that is in the sample to be rejected as `code`."""
    (trouble,) = load_troubles(code)
    return PICTURES / str(trouble["file"])


def texts(row: dict[str, Any]) -> list[str]:
    if "caption" in row:
        return [row["caption"]]
    return [caption["text"] for caption in row["captions"]]


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    lines = (SAMPLE / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    parsed = [json.loads(line) for line in lines]
    by_file = {row["file"]: row for row in parsed}
    assert len(by_file) == len(parsed)
    return by_file


@pytest.fixture(scope="module")
def files() -> set[str]:
    return {path.relative_to(PICTURES).as_posix() for path in PICTURES.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def good(files: set[str]) -> dict[str, Image.Image]:
    """Every picture that filtering must keep, decoded."""
    bad = {t["file"] for t in load_troubles() if t["stage"] == "01_filtered" and t["code"] is not None}
    return {file: upright(PICTURES / file) for file in sorted(files - bad)}


def test_the_sample_is_small_enough_to_ship() -> None:
    size = sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file())
    assert size < MAX_BYTES


def test_the_licence_and_the_credits_lie_beside_it() -> None:
    assert "GNU GENERAL PUBLIC LICENSE" in (SAMPLE / "COPYING").read_text(encoding="utf-8")
    assert "License: GPL-2" in (SAMPLE / "COPYRIGHT").read_text(encoding="utf-8")
    assert b"tuxpaint.org" in (SAMPLE / "CREDITS.txt").read_bytes()
    assert (SAMPLE / "README.md").is_file()


def test_every_row_names_a_file_that_is_there_but_the_planted_one(
    rows: dict[str, dict[str, Any]], files: set[str]
) -> None:
    planted = {t["file"] for t in load_troubles("missing_file")}
    assert set(rows) - files == planted
    assert len(planted) == 1


def test_only_the_planted_pictures_have_no_row(rows: dict[str, dict[str, Any]], files: set[str]) -> None:
    planted = {t["file"] for t in load_troubles() if t["stage"] == "02_captioned"}
    assert files - set(rows) == planted
    assert len(planted) == 5


def test_every_trouble_names_a_file_that_is_there(files: set[str]) -> None:
    troubles = [*load_troubles(), *load_troubles(level="caption")]
    present = {t["file"] for t in troubles if t["code"] != "missing_file"}
    originals = {t["of"] for t in troubles if "of" in t}
    assert present <= files
    assert originals <= files


def test_rows_have_a_licence_and_an_english_caption(rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        assert row["license"] == "GPL-2.0-or-later"
        assert "caption" in row or row["captions"][0]["lang"] == "en"
        assert len(texts(row)) <= 4


def test_there_are_several_languages_and_formats(rows: dict[str, dict[str, Any]], files: set[str]) -> None:
    languages = {c.get("lang") for row in rows.values() for c in row.get("captions", [])}
    assert languages >= {"en", "fr", "de", "es", "zh", "ja", "ru"}
    assert {Path(file).suffix for file in files} == {".png", ".jpg", ".webp", ".gif"}


def test_good_pictures_decode_and_are_large_enough(good: dict[str, Image.Image]) -> None:
    assert len(good) >= 300
    assert [file for file, image in good.items() if min(image.size) < MIN_SIDE] == []


def test_good_pictures_have_many_shapes(good: dict[str, Image.Image]) -> None:
    ratios = [image.width / image.height for image in good.values()]
    assert min(ratios) < 1 / 3
    assert max(ratios) > 3
    assert len({image.size for image in good.values()}) > len(good) / 2


def test_no_two_good_pictures_look_alike(good: dict[str, Image.Image]) -> None:
    hashes = {file: imagehash.phash(image) for file, image in good.items()}
    alike = [(a, b) for a, b in combinations(hashes, 2) if hashes[a] - hashes[b] <= RADIUS]
    assert alike == []


def test_copies_look_like_their_original_and_nothing_else(good: dict[str, Image.Image]) -> None:
    copies = load_troubles("near_duplicate")
    hashes = {file: imagehash.phash(image) for file, image in good.items()}
    for copy in copies:
        looks = imagehash.phash(upright(PICTURES / copy["file"]))
        assert [file for file, other in hashes.items() if looks - other <= RADIUS] == [copy["of"]]
    assert len(copies) == 4


def test_a_copy_is_smaller_unless_either_may_stay() -> None:
    for copy in load_troubles("near_duplicate"):
        a, b = upright(PICTURES / copy["file"]).size, upright(PICTURES / copy["of"]).size
        assert a == b if copy["either"] else a[0] * a[1] < b[0] * b[1]


def test_one_copy_has_the_same_bytes() -> None:
    same = [
        copy["file"]
        for copy in load_troubles("near_duplicate")
        if (PICTURES / copy["file"]).read_bytes() == (PICTURES / copy["of"]).read_bytes()
    ]
    assert len(same) == 1


def test_the_broken_files_are_broken_in_the_way_that_is_said() -> None:
    assert trouble_file("empty_file").stat().st_size == 0
    with pytest.raises(UnidentifiedImageError):
        Image.open(trouble_file("not_an_image"))
    with pytest.raises(OSError, match="truncated"):
        upright(trouble_file("truncated"))
    assert max(upright(trouble_file("too_small")).size) < MIN_SIDE


def test_the_rotated_photograph_lies_on_its_side_and_tells_a_place() -> None:
    (trouble,) = [t for t in load_troubles() if t["stage"] == "04_final"]
    path = PICTURES / trouble["file"]
    with Image.open(path) as image:
        exif = image.getexif()
        assert image.format == "JPEG"
        assert exif[ExifTags.Base.Orientation] == 6
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert upright(path).size == (image.height, image.width)


def test_the_moving_picture_has_two_different_frames() -> None:
    (trouble,) = [t for t in load_troubles() if t["stage"] == "01_filtered" and t["code"] is None]
    with Image.open(PICTURES / trouble["file"]) as image:
        assert getattr(image, "n_frames", 1) == 2
        first = image.convert("RGB")
        image.seek(1)
        assert imagehash.phash(first) - imagehash.phash(image.convert("RGB")) > RADIUS


def test_the_mismatched_captions_are_the_only_ones_of_good_pictures(
    rows: dict[str, dict[str, Any]], good: dict[str, Image.Image]
) -> None:
    mismatched = load_troubles("misaligned")
    assert len(mismatched) == 3
    assert all(t["file"] in good and len(texts(rows[t["file"]])) == 1 for t in mismatched)


def test_the_empty_and_the_long_captions(rows: dict[str, dict[str, Any]], good: dict[str, Image.Image]) -> None:
    empty = {file for file, row in rows.items() if "" in texts(row)}
    long = {file for file, row in rows.items() if max(map(len, texts(row))) > MAX_CAPTION}
    assert empty == {t["file"] for t in load_troubles("empty_caption", "caption")}
    assert len(empty) == 2
    assert long == {t["file"] for t in load_troubles("caption_too_long", "caption")}
    assert len(long) == 1
    assert all(0 < min(map(len, texts(rows[file]))) < MAX_CAPTION for file in long)
    assert empty | long <= set(good)
