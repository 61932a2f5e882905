"""Strangers' bytes: each gets facts or a reason, whatever becomes of the process that looks at them."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmdata.errors import ConfigError
from vlmdata.measure import decoder
from vlmdata.measure.decoder import Decoded, DecoderPool, Limits

PATIENT = Limits(max_pixels=1_000_000, timeout_s=60, memory_mb=2048)
REASONS = {"empty_file", "not_an_image", "unsupported_format", "truncated", "corrupt", "too_many_pixels"}


def encoded(format_: str, size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(out, format_, **options)
    return out.getvalue()


def plain(side: int) -> bytes:
    """A large picture in a small file."""
    out = io.BytesIO()
    Image.new("L", (side, side)).save(out, "PNG", compress_level=1)
    return out.getvalue()


GOOD = {format_: encoded(format_) for format_ in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")}
FRAMES = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
ANIMATED = "GIF animated"
GOOD[ANIMATED] = encoded("GIF", save_all=True, append_images=FRAMES)


class Pool(DecoderPool):
    """A pool of one decoder whose process is known."""

    def process(self) -> psutil.Process:
        mine = {child.pid for child in psutil.Process().children()} - self.before
        return psutil.Process(mine.pop())


@pytest.fixture
def start() -> Iterator[Callable[[Limits], Pool]]:
    """Start a pool of one decoder that is running already."""
    before = {child.pid for child in psutil.Process().children()}
    started: list[Pool] = []

    def make(limits: Limits) -> Pool:
        pool = Pool(limits, 1)
        pool.before = before
        assert pool.measure([GOOD["PNG"]])[0].facts["width"] == 40
        started.append(pool)
        return pool

    yield make
    for child in psutil.Process().children():
        if child.pid not in before:
            child.resume()
            child.kill()


@pytest.fixture(scope="module")
def pool() -> DecoderPool:
    return DecoderPool(PATIENT, 2)


def errors(found: list[Decoded]) -> list[str | None]:
    return [one.facts.get("error") for one in found]


@pytest.mark.parametrize("format_", sorted(GOOD))
def test_whole_pictures_have_facts_and_a_tile(pool: DecoderPool, format_: str) -> None:
    [found] = pool.measure([GOOD[format_]])
    assert len(found.tile) == 32 * 32
    assert "error" not in found.facts
    facts = {name: found.facts[name] for name in ("format", "width", "height", "orientation", "frames")}
    frames = len(FRAMES) + 1 if format_ == ANIMATED else 1
    assert facts == {"format": format_.split()[0], "width": 40, "height": 30, "orientation": 1, "frames": frames}


@settings(max_examples=40, deadline=None)
@given(junk=st.lists(st.binary(max_size=300), min_size=1, max_size=8))
def test_any_bytes_have_an_answer(pool: DecoderPool, junk: list[bytes]) -> None:
    found = pool.measure(junk)
    assert len(found) == len(junk)
    for one in found:
        assert one.facts.get("error") in REASONS or len(one.tile) == 1024


@settings(max_examples=60, deadline=None)
@given(
    format_=st.sampled_from(sorted(GOOD)),
    place=st.floats(0, 1),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4),
)
def test_damaged_pictures_have_an_answer(
    pool: DecoderPool, format_: str, place: float, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(GOOD[format_])
    for position, mask in flips:
        data[position % len(data)] ^= mask
    [found] = pool.measure([bytes(data[: int(place * len(data))])])
    assert found.facts.get("error") in REASONS | {"out_of_memory"} or len(found.tile) == 1024


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "WEBP"])
def test_every_shorter_half_is_refused(pool: DecoderPool, format_: str) -> None:
    data = GOOD[format_]
    cuts = [data[:length] for length in range(0, len(data) // 2, max(1, len(data) // 60))]
    assert set(errors(pool.measure(cuts))) <= {"empty_file", "truncated", "corrupt", "not_an_image"}
    assert errors(pool.measure(cuts[:1])) == ["empty_file"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty_file"),
        (b"<html>404</html>", "not_an_image"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "unsupported_format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported_format"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (GOOD["JPEG"][: len(GOOD["JPEG"]) - 200], "truncated"),
    ],
)
def test_reasons_are_told_apart(pool: DecoderPool, data: bytes, reason: str) -> None:
    assert errors(pool.measure([data])) == [reason]


def test_the_pixel_limit_is_the_last_that_is_decoded() -> None:
    small = DecoderPool(Limits(max_pixels=40 * 30, timeout_s=60, memory_mb=2048), 1)
    over = encoded("PNG", (41, 30))
    found = small.measure([GOOD["PNG"], over])
    assert errors(found) == [None, "too_many_pixels"]
    assert (found[1].facts["width"], found[1].facts["height"], found[1].tile) == (41, 30, b"")


def test_sizes_that_no_column_holds_are_a_reason(pool: DecoderPool) -> None:
    header = bytearray(GOOD["BMP"])
    header[18:22] = b"\xff\xff\xff\xff"
    [found] = pool.measure([bytes(header)])
    assert found.facts["error"] == "too_many_pixels"
    assert "width" not in found.facts
    assert "4294967295" in found.facts["detail"]


def test_answers_keep_the_order_of_more_pictures_than_a_batch(pool: DecoderPool) -> None:
    sizes = [(20 + number % 37, 30) for number in range(150)]
    through: list[int] = []
    found = pool.measure([encoded("PNG", size) for size in sizes], through.append)
    assert [one.facts["width"] for one in found] == [width for width, _ in sizes]
    assert sum(through) == 150


def test_a_picture_that_takes_too_long_fails_alone(start: Callable[[Limits], Pool]) -> None:
    hasty = start(Limits(max_pixels=10**9, timeout_s=0.2, memory_mb=4096))
    found = hasty.measure([GOOD["PNG"], plain(12_000), GOOD["JPEG"], GOOD["GIF"]])
    assert errors(found) == [None, "decode_timeout", None, None]
    assert [one.facts.get("retryable", False) for one in found] == [False, True, False, False]


def test_a_decoder_that_stops_is_killed_and_costs_one_picture(start: Callable[[Limits], Pool]) -> None:
    limited = start(Limits(max_pixels=10**6, timeout_s=1, memory_mb=2048))
    stuck = limited.process()
    stuck.suspend()
    found = limited.measure([GOOD["PNG"]] * 5)
    assert errors(found) == ["decode_timeout", None, None, None, None]
    assert not stuck.is_running() or stuck.status() == psutil.STATUS_ZOMBIE


def test_a_decoder_killed_at_rest_costs_nothing(start: Callable[[Limits], Pool]) -> None:
    killed = start(PATIENT)
    killed.process().kill()
    time.sleep(0.05)
    assert errors(killed.measure([GOOD["PNG"]] * 40)) == [None] * 40


CRASHES = """
import os, pathlib, sys
sys.path.insert(0, {folder!r})
import decode_worker as worker
whole = worker.measure
def measure(data, max_pixels):
    once = pathlib.Path({flag!r})
    if data == b"crash" or (data == b"crash once" and not once.exists()):
        once.touch()
        os.kill(os.getpid(), 9)
    return whole(data, max_pixels)
worker.measure = measure
worker.main()
"""


def test_a_decoder_killed_at_work_costs_nobody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(CRASHES.format(folder=str(decoder._WORKER.parent), flag=str(tmp_path / "flag")), encoding="utf-8")
    monkeypatch.setattr(decoder, "_WORKER", worker)
    found = DecoderPool(PATIENT, 1).measure([GOOD["PNG"], b"crash once", GOOD["GIF"], b"crash", b"crash", GOOD["JPEG"]])
    assert errors(found) == [None, "not_an_image", None, "decoder_crashed", "decoder_crashed", None]
    assert not any(one.facts.get("retryable") for one in found)


def test_the_memory_limit_is_a_reason(start: Callable[[Limits], Pool]) -> None:
    narrow = start(Limits(max_pixels=10**9, timeout_s=60, memory_mb=100))
    huge = encoded("PNG", (10, 10))
    [found] = narrow.measure([_declares(huge, 30_000, 30_000)])
    assert found.facts["error"] in {"out_of_memory", "truncated", "corrupt"}
    assert errors(narrow.measure([plain(9_000), GOOD["PNG"]])) == ["out_of_memory", None]


def _declares(data: bytes, width: int, height: int) -> bytes:
    """A PNG whose header says another size."""
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def test_a_decoder_that_cannot_start_is_the_configs_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "worker.py"
    broken.write_text("raise SystemExit(1)\n", encoding="utf-8")
    monkeypatch.setattr(decoder, "_WORKER", broken)
    with pytest.raises(ConfigError, match="decode_memory_mb"):
        DecoderPool(PATIENT, 1).measure([GOOD["PNG"]])


def test_who_has_seen_many_pictures_loads_the_kernel_and_answers_the_same(start: Callable[[Limits], Pool]) -> None:
    pool = start(PATIENT)
    picture = encoded("JPEG", (300, 200))
    [first] = pool.measure([picture])
    assert not _has_kernel(pool)
    for _ in range(600):
        assert all(found == first for found in pool.measure([picture] * 100))
        if _has_kernel(pool):
            break
    assert _has_kernel(pool)
    # What is loaded by now is used from now on.
    time.sleep(1)
    assert pool.measure([picture] * 10) == [first] * 10
    assert errors(pool.measure([plain(9_000), picture])) == ["too_many_pixels", None]


def _has_kernel(pool: Pool) -> bool:
    return any("llvmlite" in mapped.path for mapped in pool.process().memory_maps())
