"""The selection through stage 04: everybody is accounted for, splits stay, evaluation sets stay out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from expectations.final import across
from expectations.gate import check_stage
from tests.unit.conftest import given_scores
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, publish, step_key
from vlmdata.config_reading import parse_config
from vlmdata.errors import ConfigError, GateFailed, UserError
from vlmdata.export.selection.benchmark_list import read_list, write_list
from vlmdata.export.selection.check import check_selection
from vlmdata.export.selection.make_list import make_list
from vlmdata.export.selection.select import select
from vlmdata.export.verify import verify
from vlmdata.forgetting.forget import forget
from vlmdata.forgetting.who import Asked
from vlmdata.layout import Stage, Step
from vlmdata.quality.bands import judge_shard
from vlmdata.quality.embeddings import TEXTS, vector_column
from vlmdata.versions.again import export_again
from vlmdata.versions.version import Version

SHARES = {"train": 0.5, "validation": 0.25, "test": 0.25}
BY_HASH = {"max_distance": 14, "cosine": None}
"""Of unrelated pictures of noise no two are within 14 bits."""


def export(**more: Any) -> dict[str, Any]:
    settings = {"samples_per_shard": 3, "formats": ["webdataset"], "splits": SHARES, "split_by": BY_HASH}
    return {"export": {**settings, **more}, "dedup": {"max_distance": 0}}


def splits(set_: Any, version: Version) -> dict[str, str]:
    """The split of each exported sample, by key, as the files have it."""
    found = {}
    for shard in version.exported:
        for row in set_.dataset.read(shard, Step.FINAL, "samples").to_pylist():
            found[row["key"]] = shard.name.rpartition("-")[0]
    return found


def left_out(set_: Any, version: Version) -> dict[str, tuple[str, str]]:
    """Outcome and code of each sample that is not exported, by key."""
    rows = set_.rows(version.exported, Step.FINAL, "rejects")
    return {row["key"]: (row["outcome"], row["code"]) for row in rows}


def accounts_hold(set_: Any, version: Version, came: int) -> None:
    done = [set_.dataset.manifest(shard, Step.FINAL) for shard in version.exported]
    total = sum((one.samples for one in done), Counts())
    assert total.came == came
    for one in done:
        one.samples.check("samples")
        one.captions.check("captions")
        rejects = set_.dataset.table(one.tables["rejects"])
        assert len(rejects) == one.samples.rejected + one.samples.held + one.samples.failed


def like(data: bytes) -> bytes:
    """A picture that looks much like another: its hash is a few bits off."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.array(image.convert("RGB"))
    pixels[:10, :10] = 255 - pixels[:10, :10]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_splits_have_files_of_their_own_and_nobody_changes(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({f"a{n:02d}.png": pictures.png(n) for n in range(16)}, **export())
    first = set_.publish()
    before = splits(set_, first)
    assert sorted(before.values()) == sorted(["train"] * 8 + ["validation"] * 4 + ["test"] * 4)
    told = json.loads((Path(set_.dataset.store.locate(first.export)) / "MANIFEST.json").read_text())
    assert {file["path"].split("/")[0] for file in told["files"]} == set(SHARES)
    for file in told["files"]:
        assert Path(file["path"]).parent == Path(file["split"]) / "webdataset"
    assert verify(set_.dataset.store.locate(first.export)).holds
    # Likenesses of all that is there: each joins the split of its own.
    set_.add({f"b{n:02d}.png": like(pictures.png(n)) for n in range(16)})
    second = set_.publish()
    after = splits(set_, second)
    assert {key: split for key, split in after.items() if key in before} == before
    assert check_stage(set_.dataset, second.exported, Stage.FINAL, set_.config) == []
    joined = {key: split for key, split in after.items() if key not in before}
    assert len(joined) > 10, "but for those whose hash is the same"
    assert joined == {key: before[key.replace("b", "a", 1)] for key in joined}
    accounts_hold(set_, second, 16 + len(joined))


def test_who_comes_back_has_the_split_that_it_had(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({f"a{n:02d}.png": pictures.png(n) for n in range(12)}, **export())
    before = splits(set_, set_.publish())
    away = {f"a{n:02d}.png": pictures.png(n) for n in range(0, 12, 2)}
    for key in away:
        set_.remove(key)
    set_.publish()
    set_.add({**away, **{f"c{n}.png": pictures.png(100 + n) for n in range(6)}})
    after = splits(set_, set_.publish())
    assert {key: split for key, split in after.items() if key in before} == before


def test_a_newcomer_that_would_join_two_splits_is_held(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({f"a{n:02d}.png": pictures.png(n) for n in range(8)}, **export())
    first = set_.publish()
    before = splits(set_, first)
    one, other = next((a, b) for a in before for b in before if before[a] != before[b])
    # The same captions join, too, if that is asked for.
    joined = export(split_by={**BY_HASH, "captions": True})
    set_ = growing({f"a{n:02d}.png": pictures.png(n) for n in range(8)}, **joined)
    before = splits(set_, set_.publish())
    one, other = next((a, b) for a in sorted(before) for b in sorted(before) if before[a] != before[b])
    set_.add({"bridge.png": pictures.png(77)})
    set_.said["bridge.png"] = [one.upper(), other]
    set_.write_captions()
    second = set_.publish()
    assert left_out(set_, second) == {"bridge.png": ("held", "split_conflict")}
    assert splits(set_, second) == before
    accounts_hold(set_, second, 9)


def spoken(dataset: Dataset, shard: Shard, vectors: dict[str, list[float]]) -> Shard:
    """The checkpoint that a model would leave which embeds captions so, by text."""
    captions = dataset.read(shard, Step.CAPTIONED, "captions")
    rows = np.array([vectors[text] for text in captions["text"].to_pylist()], np.float32)
    texts = pa.table({"caption_id": captions["caption_id"], "embedding": vector_column(rows)})
    scores = dataset.read(given_scores(dataset, shard, {}), Step.SCORES, "scores")
    result = Result({"scores": scores, f"{TEXTS}0": texts}, captions=Counts(came=len(rows), kept=len(rows)))
    key = step_key(Step.SCORES, captions["caption_id"].to_pylist(), "spoken")
    return shard.at(Step.SCORES, publish(dataset, shard.name, Step.SCORES, key, result))


def test_whoever_says_nearly_the_same_belongs_together(tiny: Callable[..., Any], pictures: Any) -> None:
    files = {f"{n}.png": pictures.png(n) for n in range(7)}
    said = {name: [name] for name in files} | {"6.png": ["6.png", "more of it"]}
    vectors = dict(zip([*files, "more of it"], np.eye(8).tolist(), strict=True))
    # Not of length 1, as models leave them.
    vectors["more of it"] = [2 * 0.96, 2 * 0.28, *[0.0] * 6]
    start = tiny(files, said, shard_size=3, quality={"device": "cpu"})
    captioned = start.ingested().filtered().captioned()
    shards = captioned.each(spoken, vectors).each(judge_shard, start.config.quality).shards
    for at_least, together in ((0.95, {"0.png", "6.png"}), (0.97, None), (None, None)):
        by = {"max_distance": None, "cosine": None, "caption_cosine": at_least}
        config = parse_config({**start.config.model_dump(), **export(split_by=by)})
        [selected, *_] = select(start.dataset, shards, config)
        assert start.dataset.manifest(selected, Step.SELECTED).facts["largest"] == len(together or "1")
        rows = {row["id"]: row["split"] for row in start.dataset.read(selected, Step.SELECTED, "selected").to_pylist()}
        samples = [row for shard in shards for row in start.dataset.read(shard, Step.CHECKED, "samples").to_pylist()]
        assert len({rows[row["id"]] for row in samples if row["key"] in (together or ())}) <= 1


def test_pictures_of_evaluation_sets_stay_out_and_are_named(
    growing: Callable[..., Any], pictures: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "one.png").write_bytes(like(pictures.png(3)))
    (folder / "other.png").write_bytes(pictures.png(500))
    (folder / "broken.jpg").write_bytes(b"no picture")
    made = make_list(str(folder), "toy-val", tmp_path / "toy.parquet", None)
    assert (made.pictures, made.unreadable) == (2, 1)
    lists = {"lists": [str(tmp_path / "toy.parquet")]}
    set_ = growing({f"a{n}.png": pictures.png(n) for n in range(6)}, **export(decontaminate=lists, splits=None))
    version = set_.publish()
    assert left_out(set_, version) == {"a3.png": ("rejected", "contaminated")}
    row = next(iter(set_.rows(version.exported, Step.FINAL, "rejects")))
    assert 0 < row["value"] <= 8
    assert (row["bound"], row["detail"]) == (8, "toy-val: one.png")
    accounts_hold(set_, version, 6)


def test_the_same_list_is_the_same_bytes(pictures: Any, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.png").write_bytes(pictures.png(n))
    for name in ("one.parquet", "other.parquet"):
        make_list(str(folder), "toy-val", tmp_path / name, None)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()


@pytest.mark.parametrize("against", ["file", "folder", "plain bytes"])
def test_an_evaluation_set_may_come_as_parquet(pictures: Any, tmp_path: Path, against: str) -> None:
    data = [like(pictures.png(3)), pictures.png(500), b"no picture"]
    folder, parquet = tmp_path / "pictures", tmp_path / "rows"
    folder.mkdir()
    parquet.mkdir()
    for number, one in enumerate(data):
        (folder / f"{number}.png").write_bytes(one)
    column, cells = "image", pa.array([{"bytes": one, "path": f"{number}.png"} for number, one in enumerate(data)])
    if against == "plain bytes":
        column, cells = "picture", pa.array(data)
    table = pa.table({column: cells, "label": ["a", "b", "c"]})
    pq.write_table(table.slice(0, 2), parquet / "0.parquet")
    pq.write_table(table.slice(2) if against == "folder" else table, parquet / "1.parquet")
    place = parquet if against == "folder" else parquet / "1.parquet"
    made = make_list(str(place), "toy-val", tmp_path / "listed.parquet", None, column)
    assert (made.pictures, made.unreadable) == (2, 1)
    make_list(str(folder), "toy-val", tmp_path / "same.parquet", None)
    mine, same = (read_list(str(tmp_path / name)).rows for name in ("listed.parquet", "same.parquet"))
    for name in ("benchmark", "sha256", "phash"):
        assert sorted(mine[name].to_pylist()) == sorted(same[name].to_pylist())
    assert len(set(mine["key"].to_pylist())) == 2, "each is named"


def test_a_parquet_without_that_column_is_one_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="image") as told:
        make_list(str(tmp_path / "rows.parquet"), "toy-val", tmp_path / "listed.parquet", None)
    assert "\n" not in str(told.value) and not (tmp_path / "listed.parquet").exists()


def test_another_model_s_embeddings_are_refused(growing: Callable[..., Any], pictures: Any, tmp_path: Path) -> None:
    rows = pa.table({"benchmark": ["b"], "key": ["k"], "sha256": ["0" * 64], "phash": pa.array([1], pa.uint64())})
    write_list(tmp_path / "other.parquet", rows, np.ones((1, 4), np.float32), {"model": "another"})
    lists = {"lists": [str(tmp_path / "other.parquet")]}
    config = growing({"a.png": pictures.png(1)}, **export(decontaminate=lists)).config
    with pytest.raises(ConfigError, match="embedded by another"):
        check_selection(config.export, config.quality)
    config = growing({"a.png": pictures.png(1)}, **export(decontaminate={**lists, "cosine": None})).config
    check_selection(config.export, config.quality)


@pytest.mark.parametrize(
    "select", [{"caps": {"size": {"huge": 1}}}, {"weights": {"score_decile": {"11": 0.5}}}], ids=["size", "decile"]
)
def test_a_group_that_there_cannot_be_is_refused(
    growing: Callable[..., Any], pictures: Any, select: dict[str, Any]
) -> None:
    config = growing({"a.png": pictures.png(1)}, **export(select=select)).config
    with pytest.raises(ConfigError, match="expected"):
        check_selection(config.export, config.quality)


def test_quotas_leave_out_and_tell_why(growing: Callable[..., Any], pictures: Any) -> None:
    files = {f"{folder}/{n}.png": pictures.png(10 * at + n) for at, folder in enumerate("xyz") for n in range(4)}
    select = {"top_fraction": 0.75, "weights": {"source": {"y": 0.0}}, "caps": {"source": {"x": 1, "nowhere": 1}}}
    set_ = growing(files, **export(splits=None, select=select))
    scores = {key: 0.5 + 0.01 * at for at, key in enumerate(sorted(files))}
    version = set_.publish(scores)
    found = left_out(set_, version)
    low = sorted(files)[:3]
    assert {key: code for key, (_, code) in found.items()} == {
        **dict.fromkeys(low, "below_top"),
        **dict.fromkeys([f"y/{n}.png" for n in range(4)], "weight"),
    }
    assert sorted(splits(set_, version)) == ["x/3.png", *[f"z/{n}.png" for n in range(4)]]
    accounts_hold(set_, version, 12)
    selected = set_.dataset.manifest(version.exported[0], Step.SELECTED)
    assert selected.facts["warnings"] == ["export.select.caps.source: no sample is of 'nowhere'"]


def test_an_increment_adds_files_to_the_splits(growing: Callable[..., Any], pictures: Any, tmp_path: Path) -> None:
    set_ = growing({f"a{n:02d}.png": pictures.png(n) for n in range(12)}, **export(increments=True))
    first = set_.publish()
    before = splits(set_, first)
    set_.add({f"c{n:02d}.png": pictures.png(100 + n) for n in range(12)})
    second = set_.publish()
    told = json.loads((Path(set_.dataset.store.locate(second.export)) / "MANIFEST.json").read_text())
    assert {file["split"] for file in told["earlier"]} == set(SHARES)
    after = splits(set_, second)
    assert len(after) == 24
    assert {key: split for key, split in after.items() if key in before} == before
    place, samples = export_again(set_.dataset, 2, str(tmp_path / "copy"), [])
    assert samples == 24
    assert verify(place).samples == 24


def test_the_cut_of_the_source_does_not_show(growing: Callable[..., Any], pictures: Any, tmp_path: Path) -> None:
    found = []
    for size in (2, 5):
        select = {"weights": {"source": {"*": 0.8}}}
        set_ = growing({f"a{n}.png": pictures.png(n) for n in range(9)}, **export(select=select), shard_size=size)
        version = set_.publish()
        place = Path(export_again(set_.dataset, version.number, str(tmp_path / str(size)), [])[0])
        found.append({path.relative_to(place): path.read_bytes() for path in place.rglob("*.tar")})
        for path in sorted(Path(set_.config.store).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert found[0] == found[1]


def test_who_is_forgotten_leaves_the_selection(growing: Callable[..., Any], pictures: Any) -> None:
    select = {"caps": {"source": {".": 10}}}
    set_ = growing({f"a{n:02d}.png": pictures.png(n) for n in range(12)}, **export(select=select))
    version = set_.publish()
    ids = {row["key"]: row["id"] for row in set_.rows(version.shards, Step.RAW, "samples")}
    out, inside = next(iter(left_out(set_, version))), next(iter(splits(set_, version)))
    forget(set_.dataset, Asked.of(samples=(ids[out], ids[inside]), urls=(), domains=(), sha256s=()))
    for path in set_.dataset.store.list(f"{set_.dataset.name}/04_final"):
        if path.endswith(".parquet"):
            held = pa.BufferReader(set_.dataset.store.get(path))
            words = repr(pa.parquet.read_table(held).to_pylist())
            assert ids[out] not in words, path
            assert ids[inside] not in words, path
    assert verify(set_.dataset.store.locate(version.export)).holds
    after = set_.publish()
    assert not {out, inside} & {*splits(set_, after), *left_out(set_, after)}
    accounts_hold(set_, after, 10)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["train", "test", "validation"]), st.integers(0, 255)), max_size=30))
def test_the_gate_finds_whoever_is_close_to_one_of_another_split(rows: list[tuple[str, int]]) -> None:
    names, hashes = pa.chunked_array([[name for name, _ in rows]]), [value for _, value in rows]
    found = across(names.cast(pa.string()), pa.chunked_array([hashes]).cast(pa.uint64()), 2)
    pairs = {
        (at, to)
        for at, (one, first) in enumerate(rows)
        for to, (other, second) in enumerate(rows)
        if one != other and (first ^ second).bit_count() <= 2
    }
    assert {(at, to) for at, to in enumerate(found.tolist()) if to >= 0} <= pairs
    assert bool(pairs) == bool((found >= 0).any())


def test_the_gate_s_rule_is_broken_by_a_leak(growing: Callable[..., Any], pictures: Any) -> None:
    files = {f"a{n:02d}.png": pictures.png(n) for n in range(8)} | {
        f"b{n:02d}.png": like(pictures.png(n)) for n in range(8)
    }
    careless = export(split_by={"max_distance": None, "cosine": None})
    set_ = growing(files, **careless)
    version = set_.publish()
    careful = set_.config.model_copy(update={"export": growing({}, **export()).config.export})
    with pytest.raises(GateFailed, match="no_split_leaks"):
        check_stage(set_.dataset, version.exported, Stage.FINAL, careful)
