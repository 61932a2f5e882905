"""Thumbnails: small, upright, and of what can be opened alone."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from vlmdata.layout import Step
from vlmdata.report.pictures import _LARGEST, SIDE, stored_pictures, thumbnail, thumbnails


def opened(data: bytes | None) -> Image.Image:
    assert data is not None
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_shape_stays_and_nothing_is_blown_up(pictures: Any) -> None:
    assert opened(thumbnail(pictures.png(1, 1_000, 250))).size == (SIDE, SIDE // 4)
    assert opened(thumbnail(pictures.png(1, 30, 20))).size == (30, 20)
    photo = pictures.encode(pictures.picture(2, 4_000, 3_000), "JPEG")
    assert opened(thumbnail(photo)).size == (SIDE, SIDE * 3 // 4)


def test_exif_turns_it_and_what_is_transparent_stands_on_white(pictures: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = pictures.encode(pictures.picture(3, 400, 200), "JPEG", exif=exif.tobytes())
    assert opened(thumbnail(turned)).size == (SIDE // 2, SIDE)
    clear = pictures.encode(Image.new("RGBA", (50, 50), (255, 0, 0, 0)))
    assert opened(thumbnail(clear)).convert("RGB").getpixel((25, 25)) == (255, 255, 255)


def test_noise_gets_less_quality_and_not_more_bytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noise).save(sink, "PNG")
    plain = io.BytesIO()
    Image.fromarray(noise).save(plain, "WEBP", quality=62)
    made = thumbnail(sink.getvalue())
    assert made is not None and len(made) < plain.tell() and len(made) < 3 * _LARGEST


def test_what_does_not_open_has_none(pictures: Any) -> None:
    assert thumbnail(b"") is None and thumbnail(b"<svg/>") is None
    assert thumbnail(pictures.png(1)[:-40]) is None


def test_those_that_are_asked_for_come_from_whatever_row_group(tiny: Any, pictures: Any) -> None:
    files = {f"{n:03}.png": pictures.png(n, 40, 30) for n in range(70)}
    built = tiny(files, None, shard_size=70).ingested()
    [shard] = built.shards
    samples = built.dataset.read(shard, Step.RAW, "samples", ["id", "key"]).to_pylist()
    wanted = {row["id"]: row["key"] for row in samples if row["key"] in {"000.png", "033.png", "069.png"}}
    found = {id_: bytes(data) for id_, data in stored_pictures(built.dataset, shard, list(wanted))}
    assert {wanted[id_]: data for id_, data in found.items()} == {key: files[key] for key in wanted.values()}
    made = dict(thumbnails(built.dataset, built.shards, {shard.name: list(wanted), "other": ["x"]}))
    assert set(made) == set(wanted)
