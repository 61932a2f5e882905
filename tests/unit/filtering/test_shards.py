"""01_filtered over real pictures: whatever the cut into shards, the same samples, reasons and captions."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmdata.filtering.duplicates import find_duplicates
from vlmdata.filtering.pool import Terms
from vlmdata.filtering.shards import filter_shard
from vlmdata.layout import Stage, Step


def verdicts(built: Any) -> dict[str, Any]:
    """What became of everything, without the names of shards."""
    return {
        table: sorted(built.rows(Step.FILTERED, table), key=lambda row: tuple(map(str, row.values())))
        for table in ("samples", "captions", "rejects", "caption_rejects")
    }


@pytest.fixture(scope="module")
def source(pictures: Any) -> tuple[dict[str, bytes], dict[str, list[Any]]]:
    """Sixteen files: seven pictures, twins of three of them in other sizes and formats, and broken ones."""
    files = {f"{seed}.png": pictures.png(seed) for seed in range(7)}
    files |= {f"twin-of-{seed}.jpg": pictures.encode(pictures.picture(seed, 80, 60), "JPEG") for seed in (0, 1)}
    files |= {f"twin-of-{seed}.webp": pictures.encode(pictures.picture(seed, 50, 40), "WEBP") for seed in (0, 5)}
    files |= {"copy-of-2.png": pictures.png(2), "empty.png": b"", "cut.png": pictures.png(8)[:-30]}
    files |= {"small.png": pictures.png(9, 20, 20), "text.jpg": b"hello"}
    captions: dict[str, list[Any]] = {name: [f"of {name}", "the same words", ""] for name in files}
    return files, captions | {"missing.png": ["nobody"]}


@pytest.fixture(scope="module")
def whole(source: Any, tiny_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return verdicts(tiny_in(tmp_path_factory.mktemp("whole"), *source).ingested().filtered())


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 18))
def test_any_cut_gives_the_same(source: Any, tiny_in: Callable[..., Any], whole: dict[str, Any], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = tiny_in(Path(folder), *source, shard_size=size).ingested().filtered()
        assert len(built.shards) == -(-len(source[1]) // size)
        assert verdicts(built) == whole


def test_every_fate_has_its_reason(whole: dict[str, Any]) -> None:
    codes = {row["key"]: row["code"] for row in whole["rejects"]}
    assert codes == {
        "0.png": "near_duplicate",
        "1.png": "near_duplicate",
        "twin-of-0.webp": "near_duplicate",
        "twin-of-5.webp": "near_duplicate",
        **{key: "near_duplicate" for key in ("2.png", "copy-of-2.png") if key in codes},
        "empty.png": "empty_file",
        "cut.png": "truncated",
        "small.png": "too_small",
        "text.jpg": "not_an_image",
    }
    assert ("2.png" in codes) != ("copy-of-2.png" in codes)


def test_no_two_that_stay_are_alike_and_the_larger_stays(whole: dict[str, Any]) -> None:
    kept = {row["id"]: row for row in whole["samples"]}
    hashes = np.array([row["phash"] for row in kept.values()], np.uint64)
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    assert apart[~np.eye(len(hashes), dtype=bool)].min() > 8
    for row in whole["rejects"]:
        if row["code"] == "near_duplicate":
            assert row["related"] in kept
            assert row["value"] <= row["bound"] == 8
    assert {"twin-of-0.jpg", "twin-of-1.jpg", "5.png"} <= {row["key"] for row in kept.values()}


def test_captions_of_duplicates_go_to_the_one_that_stays(whole: dict[str, Any]) -> None:
    keys = {row["id"]: row["key"] for row in [*whole["samples"], *whole["rejects"]]}
    said = {(keys[row["id"]], row["text"]): row["origin"] for row in whole["captions"]}
    ids = {key: id_ for id_, key in keys.items()}
    assert said["twin-of-0.jpg", "of 0.png"] == f"duplicate:{ids['0.png']}"
    assert said["twin-of-0.jpg", "of twin-of-0.webp"] == f"duplicate:{ids['twin-of-0.webp']}"
    assert said["twin-of-0.jpg", "the same words"] == "source"
    assert not {key for key, _ in said} & {"0.png", "1.png", "twin-of-0.webp"}
    repeated = [row for row in whole["caption_rejects"] if row["code"] == "duplicate_caption"]
    assert {row["text"] for row in repeated} == {"the same words"}
    assert {row["origin"].split(":")[0] for row in repeated} == {"duplicate"}


def test_captions_of_lost_pictures_share_their_fate(whole: dict[str, Any]) -> None:
    keys = {row["id"]: row["key"] for row in whole["rejects"]}
    lost = {keys[row["id"]] for row in whole["caption_rejects"] if row["code"] == "sample_rejected"}
    assert lost == {"empty.png", "cut.png", "small.png", "text.jpg"}


@pytest.mark.parametrize("size", [3, 100])
def test_the_accounts_hold_over_all_shards(source: Any, tiny: Callable[..., Any], size: int) -> None:
    built = tiny(*source, shard_size=size).ingested()
    raw = built.report(Stage.RAW)
    filtered = built.filtered().report(Stage.FILTERED)
    for counts in (raw.samples, raw.captions, filtered.samples, filtered.captions):
        counts.check("test")
    assert filtered.samples.came == raw.samples.kept
    assert filtered.captions.came == raw.captions.kept
    assert sum(filtered.reasons.values()) == filtered.samples.rejected
    assert sum(filtered.caption_reasons.values()) == filtered.captions.rejected


def test_a_time_out_fails_its_captions_with_it(pictures: Any, tiny: Callable[..., Any]) -> None:
    from PIL import Image

    # Far over the limit on any machine, as the other one is far under it, even on one that does much else.
    slow = pictures.encode(Image.new("RGB", (12_000, 12_000)), compress_level=1)
    limits = {"decode_timeout_s": 0.5, "max_pixels": 178_956_970}
    built = tiny({"a.png": pictures.png(1), "b.png": slow}, {"a.png": ["x"], "b.png": ["y"]}, filter=limits)
    report = built.ingested().filtered().report(Stage.FILTERED)
    assert (report.samples.kept, report.samples.failed, report.captions.failed) == (1, 1, 1)
    assert (report.reasons, report.caption_reasons) == ({"decode_timeout": 1}, {"sample_failed": 1})


@pytest.mark.parametrize("files", [{"a.png": b""}, {"a.png": b"", "b.png": b"x", "c.png": b""}])
def test_shards_of_which_nothing_stays(tiny: Callable[..., Any], files: dict[str, bytes]) -> None:
    built = tiny(files, {name: ["words"] for name in files}, shard_size=1).ingested().filtered()
    report = built.captioned().report(Stage.CAPTIONED)
    assert (report.samples.came, report.captions.came) == (0, 0)


def test_a_shard_without_a_single_picture(pictures: Any, tiny: Callable[..., Any]) -> None:
    files, captions = {"a.png": pictures.png(1)}, {"a.png": ["x"], "z1.png": ["y"], "z2.png": ["z"]}
    built = tiny(files, captions, shard_size=1).ingested().filtered()
    assert [len(built.dataset.read(shard, Step.FILTERED, "samples")) for shard in built.shards] == [1, 0, 0]


def test_of_pictures_of_one_size_the_smallest_id_stays(pictures: Any, tiny: Callable[..., Any]) -> None:
    files = {f"{name}-{seed}.png": pictures.png(seed) for seed in range(4) for name in "abc"}
    built = tiny(files, shard_size=5).ingested()
    ids = {row["key"]: row["id"] for row in built.rows(Step.RAW, "samples")}
    smallest = [min(ids[f"{name}-{seed}.png"] for name in "abc") for seed in range(4)]
    assert sorted(row["id"] for row in built.filtered().rows(Step.FILTERED, "samples")) == sorted(smallest)


@pytest.mark.parametrize(("radius", "kept"), [(0, 2), (8, 1)])
def test_the_radius_decides(pictures: Any, tiny: Callable[..., Any], radius: int, kept: int) -> None:
    noisy = np.asarray(pictures.picture(1)).astype(int) + np.random.default_rng(0).integers(-25, 26, (48, 64, 3))
    from PIL import Image

    other = pictures.encode(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    built = tiny({"a.png": pictures.png(1), "b.png": other}, dedup={"max_distance": radius}).ingested()
    assert built.filtered().report(Stage.FILTERED).samples.kept == kept


def test_a_moved_threshold_decodes_nothing(pictures: Any, tiny: Callable[..., Any]) -> None:
    built = tiny({"a.png": pictures.png(1), "b.png": pictures.png(2, 50, 50)}).ingested()
    measured = built.filtered()
    stricter = built.config.filter.model_copy(update={"min_side": 49})
    again = [shard.at(Step.FACTS, shard.manifests[Step.FACTS]) for shard in measured.shards]
    found = find_duplicates(built.dataset, again, Terms(stricter, built.config.dedup))
    shards = [filter_shard(built.dataset, shard, stricter, built.config.dedup) for shard in found]
    assert [len(built.dataset.read(shard, Step.FILTERED, "samples")) for shard in shards] == [1]
