"""From checked shards to a finished export, by way of real files in a real store."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmdata import layout
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import ExportConfig, PixelsConfig
from vlmdata.errors import BuildIncomplete, StoreError, UserError
from vlmdata.export.finish import finish_export, locate_export
from vlmdata.export.plan import plan_export
from vlmdata.export.shards import export_shard
from vlmdata.layout import Step
from vlmdata.progress import Listener, listening

Source = Callable[[int], dict[str, bytes]]
Cut = Callable[..., tuple[Dataset, list[Shard]]]
SMALL = ExportConfig(samples_per_shard=4)


class Heard(Listener):
    """Counts what goes through the export."""

    samples = 0

    def advance(self, step: Step, samples: int) -> None:
        assert step is Step.FINAL
        self.samples += samples


def export(dataset: Dataset, shards: list[Shard], config: ExportConfig = SMALL) -> list[Shard]:
    return [export_shard(dataset, shard, config) for shard in plan_export(dataset, shards, config)]


def finished_export(*given: Any) -> str:
    """Where an export lies that is finished now."""
    return locate_export(given[0].store, finish_export(*given))


def tree(folder: str) -> dict[str, bytes]:
    """Every file below a folder."""
    root = Path(folder)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_shard_has_so_many_bytes_of_pictures_as_they_came(cut: Cut) -> None:
    """What is written may be more: a small JPEG that is turned is encoded anew, in good quality."""
    pictures = {f"{n:02}.jpg": noise(n, quality=40) for n in range(6)}
    pictures |= {f"{n:02}.jpg": noise(n, quality=40, turned=True) for n in (6, 7)}
    pictures["08.jpg"] = noise(8, quality=100)
    sizes = [len(data) for data in pictures.values()]
    most = 3 * max(sizes[:8])
    assert 2 * most < sum(sizes[:8]) and most < sizes[8]
    dataset, shards = cut(pictures, 4)
    config = ExportConfig(bytes_per_shard=most, formats=("webdataset",))
    done = export(dataset, shards, config)
    held = [[row["key"] for row in dataset.read(shard, Step.FINAL, "samples").to_pylist()] for shard in done]
    assert [key for part in held for key in part] == list(pictures)
    came = [sum(len(pictures[key]) for key in part) for part in held]
    assert all(size <= most for size in came[:-1]) and held[-1] == ["08.jpg"], "no more than that, or one alone"
    following = [len(pictures[part[0]]) for part in held[1:]]
    assert all(size + next_ > most for size, next_ in zip(came, following, strict=False)), "and no less than fit"
    written = [dataset.manifest(shard, Step.FINAL).facts["files"][0]["bytes"] for shard in done]
    turned = next(at for at, part in enumerate(held) if "07.jpg" in part)
    assert written[turned] > most


def noise(seed: int, quality: int, *, turned: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), np.uint8)
    tags = Image.Exif()
    tags[0x0112] = 6 if turned else 1
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, exif=tags.tobytes())
    return out.getvalue()


def test_an_export_holds_every_sample_once_in_the_source_s_order(source: Source, cut: Cut) -> None:
    pictures = source(10)
    dataset, shards = cut(pictures, 3)
    done = export(dataset, shards)
    assert [shard.name for shard in done] == ["00000", "00001", "00002"]
    samples = [row for shard in done for row in dataset.read(shard, Step.FINAL, "samples").to_pylist()]
    assert [row["key"] for row in samples] == list(pictures)
    assert [row["reencoded"] for row in samples] == [index % 5 == 4 for index in range(10)]
    assert [row["changes"] for row in samples] == [["turned"] if index % 5 == 4 else [] for index in range(10)]
    for shard in done:
        manifest = dataset.manifest(shard, Step.FINAL)
        assert manifest.samples.came == manifest.samples.kept == shard.rows
        assert manifest.captions.kept == 2 * shard.rows
        places = dataset.read(shard, Step.FINAL, "places").to_pylist()
        assert {(row["format"], row["file"]) for row in places} == {
            ("webdataset", f"webdataset/{shard.name}.tar"),
            ("parquet", f"parquet/{shard.name}.parquet"),
        }


def test_the_bytes_do_not_depend_on_how_the_source_was_cut(source: Source, cut: Cut) -> None:
    trees = []
    for size in (2, 3, 10):
        dataset, shards = cut(source(10), size, f"store{size}")
        trees.append(tree(finished_export(dataset, export(dataset, shards), SMALL, {})))
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) == 10


def test_another_cut_of_the_same_rows_finds_what_is_there(source: Source, cut: Cut) -> None:
    dataset, shards = cut(source(10), 3)
    first = export(dataset, shards)
    again, others = cut(source(10), 4)
    heard = Heard()
    with listening(heard):
        second = export(again, others)
    assert heard.samples == 0
    assert [shard.manifests[Step.FINAL.value] for shard in first] == [
        shard.manifests[Step.FINAL.value] for shard in second
    ]


def test_an_interrupted_export_goes_on_to_the_same_bytes(source: Source, cut: Cut) -> None:
    dataset, shards = cut(source(10), 3)
    undisturbed = tree(finished_export(dataset, export(dataset, shards), SMALL, {}))
    dataset, shards = cut(source(10), 3, "disturbed")
    first, *_ = export(dataset, shards)
    Path(dataset.store.locate(first.manifests[Step.FINAL.value])).unlink()
    assert tree(finished_export(dataset, export(dataset, shards), SMALL, {})) == undisturbed


def test_progress_counts_every_sample(source: Source, cut: Cut) -> None:
    dataset, shards = cut(source(10), 3)
    heard = Heard()
    with listening(heard):
        export(dataset, shards)
    assert heard.samples == 10


@pytest.mark.parametrize("change", [{"jpeg_quality": 80}, {"formats": ("parquet",)}, {"samples_per_shard": 5}])
def test_other_settings_make_another_export_and_a_path_does_not(
    source: Source, cut: Cut, tmp_path: Path, change: dict[str, Any]
) -> None:
    dataset, shards = cut(source(5), 5)

    def key(config: ExportConfig) -> Any:
        return dataset.manifest(plan_export(dataset, shards, config)[0], Step.EXPORT_PLAN).facts["export"]

    assert key(SMALL) != key(SMALL.model_copy(update=change))
    assert key(SMALL) == key(SMALL.model_copy(update={"path": str(tmp_path)}))
    assert key(SMALL) == key(SMALL.model_copy(update={"formats": ("parquet", "webdataset")}))


def test_pixels_leave_as_they_were_asked_for(source: Source, cut: Cut) -> None:
    dataset, shards = cut(source(10), 3)
    config = ExportConfig(pixels=PixelsConfig(mode="pad", side=50, formats=("png",)))
    done = export(dataset, shards, config)
    (samples,) = (dataset.read(shard, Step.FINAL, "samples").to_pylist() for shard in done)
    assert {(row["width"], row["height"], row["extension"]) for row in samples} == {(50, 50, "png")}
    place = Path(finished_export(dataset, done, config, {}))
    with tarfile.open(place / "webdataset/00000.tar") as tar:
        found = [Image.open(io.BytesIO(tar.extractfile(name).read())) for name in tar.getnames() if ".png" in name]  # type: ignore[union-attr]
    assert [image.size for image in found] == [(50, 50)] * 10
    settings = json.loads((place / "MANIFEST.json").read_text())["settings"]["pixels"]
    assert (settings["mode"], settings["side"], settings["interpolation"]) == ("pad", 50, "lanczos")
    assert "| put into a square | 10 |" in (place / "README.md").read_text()


def test_a_picture_that_cannot_be_finished_costs_only_itself(source: Source, cut: Cut) -> None:
    pictures = {**source(4), "folder/zzz.jpg": b"\xff\xd8 no more of this"}
    dataset, shards = cut(pictures, 5)
    (done,) = export(dataset, shards, ExportConfig())
    manifest = dataset.manifest(done, Step.FINAL)
    assert (manifest.samples.came, manifest.samples.kept, manifest.samples.failed) == (5, 4, 1)
    assert (manifest.captions.came, manifest.captions.kept, manifest.captions.failed) == (10, 8, 2)
    assert manifest.reasons == {"export_failed": 1} and manifest.caption_reasons == {"sample_failed": 2}
    (reject,) = dataset.read(done, Step.FINAL, "rejects").to_pylist()
    assert reject["key"] == "folder/zzz.jpg" and reject["detail"] == "not a picture that can be read"
    assert [file["samples"] for file in manifest.facts["files"]] == [4, 4]


def test_a_shard_of_which_nothing_is_left_writes_no_file(cut: Cut) -> None:
    dataset, shards = cut({"a.jpg": b"no picture"}, 1)
    done = export(dataset, shards)
    manifest = dataset.manifest(done[0], Step.FINAL)
    assert manifest.facts["files"] == [] and manifest.samples.failed == 1
    assert json.loads((Path(finished_export(dataset, done, SMALL, {})) / "MANIFEST.json").read_text())["samples"] == 0


def test_no_sample_at_all_is_an_empty_export(cut: Cut) -> None:
    dataset, _ = cut({}, 1)
    assert plan_export(dataset, [], SMALL) == []
    manifest = json.loads((Path(finished_export(dataset, [], SMALL, {})) / "MANIFEST.json").read_text())
    assert manifest["files"] == [] and manifest["complete"] is True


def test_the_manifest_lists_every_file_as_it_lies_there(source: Source, cut: Cut) -> None:
    dataset, shards = cut(source(6), 3)
    place = finished_export(dataset, export(dataset, shards), SMALL, {})
    files = tree(place)
    manifest = json.loads(files.pop("MANIFEST.json"))
    assert [files.pop(name) and name for name in manifest["about"]] == ["README.md", "croissant.json"]
    assert {file["path"]: (file["sha256"], file["bytes"]) for file in manifest["files"] + manifest["indexes"]} == {
        name: (sha256(data).hexdigest(), len(data)) for name, data in files.items()
    }
    assert manifest["bytes"] == sum(map(len, files.values()))
    assert (manifest["samples"], manifest["captions"]) == (6, 12)
    assert Path(place).name == manifest["export"]


def test_a_store_that_gives_back_other_bytes_is_noticed(source: Source, cut: Cut) -> None:
    dataset, shards = cut(source(4), 4)
    (planned,) = plan_export(dataset, shards, SMALL)
    key = dataset.manifest(planned, Step.EXPORT_PLAN).facts["export"]
    dataset.store.put(f"{layout.export_prefix('stamps', key)}/parquet/00000.parquet", b"somebody else's")
    with pytest.raises(StoreError, match=r"00000\.parquet: holds other bytes"):
        export_shard(dataset, planned, SMALL)
    assert dataset.latest(Step.FINAL, key) is None


def test_an_export_that_lacks_a_shard_is_not_finished(source: Source, cut: Cut) -> None:
    dataset, shards = cut(source(6), 3)
    with pytest.raises(BuildIncomplete, match="1 of 2 shards"):
        finished_export(dataset, export(dataset, shards)[:1], SMALL, {})


def test_a_file_that_is_gone_is_noticed(source: Source, cut: Cut) -> None:
    dataset, shards = cut(source(6), 3)
    done = export(dataset, shards)
    place = finished_export(dataset, done, SMALL, {})
    (Path(place) / "webdataset/00001.tar").unlink()
    with pytest.raises(StoreError, match=r"00001\.tar: is gone"):
        finished_export(dataset, done, SMALL, {})


def test_an_export_s_place_moves_with_its_store(source: Source, cut: Cut, tmp_path: Path) -> None:
    dataset, shards = cut(source(2), 2)
    place = finish_export(dataset, export(dataset, shards), SMALL, {})
    dataset.store.root.rename(tmp_path / "moved")
    moved = Dataset(str(tmp_path / "moved"), dataset.name)
    assert (Path(locate_export(moved.store, place)) / "MANIFEST.json").is_file()


def test_a_copy_into_the_store_moves_with_it_and_one_elsewhere_does_not(
    source: Source, cut: Cut, tmp_path: Path
) -> None:
    dataset, shards = cut(source(2), 2)
    done = export(dataset, shards)
    inside = finish_export(dataset, done, copied_to(dataset.store.root / "copies/one"), {})
    assert inside == "copies/one"
    outside = finish_export(dataset, done, copied_to(tmp_path / "out"), {})
    assert outside == locate_export(dataset.store, outside) == str(tmp_path / "out")


def test_a_copy_needs_no_hard_links(source: Source, cut: Cut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, shards = cut(source(2), 2)
    done = export(dataset, shards)
    original = tree(finished_export(dataset, done, SMALL, {}))

    link, out = os.link, tmp_path / "out"

    def link_elsewhere(source: str, target: Path) -> None:
        if target.is_relative_to(out):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(os, "link", link_elsewhere)
    assert tree(finished_export(dataset, done, copied_to(out), {})) == original


def test_a_copy_that_cannot_be_written_names_its_key(source: Source, cut: Cut, tmp_path: Path) -> None:
    dataset, shards = cut(source(2), 2)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"^export\.path: .*/file/below: cannot be written"):
        finish_export(dataset, export(dataset, shards), copied_to(tmp_path / "file/below"), {})


def copied_to(folder: Path, **more: Any) -> ExportConfig:
    return ExportConfig(samples_per_shard=4, path=str(folder), **more)


def test_a_copy_is_equal_and_is_mended_where_it_is_hurt(source: Source, cut: Cut, tmp_path: Path) -> None:
    dataset, shards = cut(source(6), 3)
    config = copied_to(tmp_path / "out")
    done = export(dataset, shards, config)
    assert finished_export(dataset, done, config, {}) == str(tmp_path / "out")
    original = tree(finished_export(dataset, done, SMALL, {}))
    assert tree(str(tmp_path / "out")) == original
    untouched = (tmp_path / "out/parquet/00000.parquet").stat().st_ino
    (tmp_path / "out/MANIFEST.json").write_text('{"dataset": "stamps", "export": "x", "complete": false, "files": []}')
    (tmp_path / "out/webdataset/00001.tar").write_bytes(b"half a")
    (tmp_path / "out/README.md").unlink()
    finished_export(dataset, done, config, {})
    assert tree(str(tmp_path / "out")) == original
    assert (tmp_path / "out/parquet/00000.parquet").stat().st_ino == untouched


def test_a_copy_replaces_an_earlier_export_of_the_same_dataset_and_nothing_else(
    source: Source, cut: Cut, tmp_path: Path
) -> None:
    dataset, shards = cut(source(10), 5)
    out = tmp_path / "out"
    finished_export(dataset, export(dataset, shards), copied_to(out), {})
    (out / "webdataset/notes.tar").write_text("mine")
    fewer = copied_to(out, formats=("webdataset",))
    done = export(dataset, shards[:1], fewer)
    finished_export(dataset, done, fewer, {})
    expected = tree(finished_export(dataset, done, ExportConfig(samples_per_shard=4, formats=("webdataset",)), {}))
    assert tree(str(out)) == {**expected, "webdataset/notes.tar": b"mine"}


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("MANIFEST.json", '{"dataset": "other", "export": "1", "files": []}', "holds the export of 'other'"),
        ("MANIFEST.json", "no json", "a MANIFEST.json that is no export's"),
        ("MANIFEST.json", '{"icons": []}', "a MANIFEST.json that is no export's"),
        ("README.md", "my project", "has a README.md that no export put there"),
    ],
)
def test_a_folder_that_holds_something_else_is_left_alone(
    source: Source, cut: Cut, tmp_path: Path, file: str, content: str, says: str
) -> None:
    dataset, shards = cut(source(2), 2)
    out = tmp_path / "out"
    out.mkdir()
    (out / file).write_text(content)
    with pytest.raises(UserError, match=says):
        finished_export(dataset, export(dataset, shards), copied_to(out), {})
    assert tree(str(out)) == {file: content.encode()}


def test_a_manifest_that_names_files_outside_removes_none(source: Source, cut: Cut, tmp_path: Path) -> None:
    dataset, shards = cut(source(2), 2)
    out, outside = tmp_path / "out", tmp_path / "precious.tar"
    out.mkdir()
    outside.write_text("mine")
    files = [{"path": "../precious.tar"}, {"path": str(outside)}]
    (out / "MANIFEST.json").write_text(json.dumps({"dataset": "stamps", "export": "1", "files": files}))
    finished_export(dataset, export(dataset, shards), copied_to(out), {})
    assert outside.read_text() == "mine"
