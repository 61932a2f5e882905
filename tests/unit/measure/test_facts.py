"""The facts of a shard: once, in order, and again only where the decoder was to blame."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import imagehash
import pyarrow as pa
import pytest
from PIL import Image

from vlmdata import progress
from vlmdata.layout import Step
from vlmdata.measure.decoder import Decoded
from vlmdata.measure.facts import facts_table, measure, measure_shard
from vlmdata.measure.pixels import upright_rgb
from vlmdata.schema import FACTS, IMAGES

# Larger than the limit of time below allows, on any machine.
HUGE = 12_000


def images(*data: bytes) -> pa.Table:
    ids = [f"{number:032x}" for number in range(len(data))]
    return pa.table([ids, list(data)], schema=IMAGES)


def test_hashes_are_those_of_imagehash_on_the_upright_picture(pictures: Any, tiny: Callable[..., Any]) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    files = {
        "a.png": pictures.png(1),
        "b.jpg": pictures.encode(pictures.picture(2), "JPEG", exif=tags),
        "c.webp": pictures.encode(pictures.picture(3, mode="RGBA"), "WEBP"),
        "d.gif": pictures.encode(pictures.picture(4), "GIF"),
    }
    built = tiny(files).ingested()
    built = built.each(measure_shard, built.config.filter)
    found = [f"{row['phash']:016x}" for row in built.rows(Step.FACTS, "facts")]
    expected = [str(imagehash.phash(upright_rgb(Image.open(io.BytesIO(data))))) for data in files.values()]
    assert found == expected
    assert [row["orientation"] for row in built.rows(Step.FACTS, "facts")] == [1, 6, 1, 1]


def test_sliced_and_chunked_pictures_are_the_same_pictures(pictures: Any, tiny: Callable[..., Any]) -> None:
    config = tiny({"a.png": pictures.png(0)}).config.filter
    whole = images(*[pictures.png(seed, 40 + seed, 40) for seed in range(9)], b"", b"nothing")
    cut = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 0), whole.slice(2, 5), whole.slice(7)])
    assert measure(cut, config).equals(measure(whole, config))
    assert measure(whole.slice(3, 4), config).equals(measure(whole, config).slice(3, 4))


def test_no_picture_at_all(tiny: Callable[..., Any], pictures: Any) -> None:
    config = tiny({"a.png": pictures.png(0)}).config.filter
    for nothing in (
        images(),
        images(b"x").slice(0, 0),
        pa.table({name: pa.chunked_array([], IMAGES.field(name).type) for name in IMAGES.names}, schema=IMAGES),
    ):
        assert measure(nothing, config).equals(FACTS.empty_table())


def test_a_header_that_claims_the_impossible_costs_its_picture_alone(pictures: Any, tiny: Callable[..., Any]) -> None:
    lie = bytearray(pictures.encode(pictures.picture(1), "BMP"))
    lie[18:26] = b"\xff" * 4 + b"\x01\0\0\0"
    config = tiny({"a.png": pictures.png(0)}).config.filter
    assert measure(images(bytes(lie), pictures.png(2)), config)["error"].to_pylist() == ["too_many_pixels", None]


def test_reports_that_lack_fields_are_null() -> None:
    table = facts_table(pa.chunked_array([["x"]]), [Decoded({"error": "corrupt", "detail": "words"})])
    [row] = table.to_pylist()
    assert (row["error"], row["retryable"], row["phash"], row["width"]) == ("corrupt", False, None, None)


class Ear(progress.Listener):
    """Counts what was decoded."""

    def __init__(self) -> None:
        self.decoded = 0

    def advance(self, step: Step, samples: int) -> None:
        if step is Step.FACTS:
            self.decoded += samples


def decoded(work: Callable[[], Any]) -> tuple[Any, int]:
    ear = Ear()
    with progress.listening(ear):
        return work(), ear.decoded


def test_a_rerun_after_time_outs_does_just_those(pictures: Any, tiny: Callable[..., Any]) -> None:
    slow = pictures.encode(Image.new("L", (HUGE, HUGE)), compress_level=1)
    files = {"a.png": pictures.png(1), "b.png": slow, "c.png": pictures.png(2), "d.png": b"no picture"}
    raw = tiny(files, filter={"decode_timeout_s": 0.2, "max_pixels": HUGE * HUGE}).ingested()
    first, looked_at = decoded(lambda: raw.each(measure_shard, raw.config.filter))
    manifest = raw.dataset.manifest(first.shards[0], Step.FACTS)
    assert (looked_at, manifest.generation, manifest.open, manifest.samples.failed) == (4, 0, 1, 1)
    assert [row["error"] for row in first.rows(Step.FACTS, "facts")] == [None, "decode_timeout", None, "not_an_image"]

    patient = raw.config.filter.model_copy(update={"decode_timeout_s": 60})
    second, looked_at = decoded(lambda: raw.each(measure_shard, patient))
    manifest = raw.dataset.manifest(second.shards[0], Step.FACTS)
    assert (looked_at, manifest.generation, manifest.open) == (1, 1, 0)
    assert [row["error"] for row in second.rows(Step.FACTS, "facts")] == [None, None, None, "not_an_image"]

    undisturbed = measure(raw.dataset.read(raw.shards[0], Step.RAW, "images"), patient)
    assert raw.dataset.read(second.shards[0], Step.FACTS, "facts").equals(undisturbed)
    third, looked_at = decoded(lambda: raw.each(measure_shard, raw.config.filter))
    assert (looked_at, third.shards) == (0, second.shards)


def test_how_it_is_done_is_no_part_of_the_name(pictures: Any, tiny: Callable[..., Any]) -> None:
    raw = tiny({"a.png": pictures.png(1)}).ingested()
    config = raw.config.filter
    first = raw.each(measure_shard, config)
    same = config.model_copy(update={"decode_timeout_s": 7, "workers": 1, "min_side": 5})
    assert raw.each(measure_shard, same).shards == first.shards
    for limit in ("max_pixels", "decode_memory_mb"):
        other = config.model_copy(update={limit: 10**3})
        assert raw.each(measure_shard, other).shards != first.shards


@pytest.mark.parametrize("kept", [0, 1])
def test_accounts(pictures: Any, tiny: Callable[..., Any], kept: int) -> None:
    files = {"broken.png": b"x", **({"good.png": pictures.png(1)} if kept else {})}
    raw = tiny(files).ingested()
    shard = raw.each(measure_shard, raw.config.filter).shards[0]
    counts = raw.dataset.manifest(shard, Step.FACTS).samples
    assert (counts.came, counts.kept, counts.rejected, counts.failed) == (1 + kept, kept, 1, 0)
