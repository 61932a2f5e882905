"""An export that grows: files that hold what they held stay as they are; a version is all of its files."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmdata.errors import ConfigError
from vlmdata.export.formats import FORMATS
from vlmdata.export.verify import verify
from vlmdata.layout import Step
from vlmdata.versions.again import export_again
from vlmdata.versions.version import Version

SECTIONS = {"export": {"increments": True, "samples_per_shard": 2, "formats": ["webdataset"]}}


def folder(set_: Any, version: Version) -> Path:
    return Path(set_.dataset.store.locate(version.export))


def manifest(set_: Any, version: Version) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder(set_, version) / "MANIFEST.json").read_text())
    return found


def keys_in(place: Path) -> list[str]:
    """Every sample below a folder, by its key."""
    found = []
    for tar in sorted(place.glob("webdataset/*.tar")):
        with tarfile.open(tar) as archive:
            sidecars = [member for member in archive if member.name.endswith(".json")]
            found += [json.loads(archive.extractfile(member).read())["key"] for member in sidecars]  # type: ignore[union-attr]
    return sorted(found)


def places(version: Version, set_: Any) -> dict[str, str]:
    """Where each file of a version lies."""
    done = [set_.dataset.manifest(shard, Step.FINAL).facts for shard in version.exported]
    return {file["path"]: facts["export"] for facts in done for file in facts["files"]}


def test_only_what_is_new_is_written(growing: Callable[..., Any], pictures: Any, tmp_path: Path) -> None:
    set_ = growing({f"b{n}.png": pictures.png(n) for n in range(4)}, **SECTIONS)
    first = set_.publish()
    assert [file["path"] for file in manifest(set_, first)["files"]] == ["webdataset/00000.tar", "webdataset/00001.tar"]
    set_.add({"a.png": pictures.png(10), "z.png": pictures.png(11), "bb.png": pictures.png(12)})
    second = set_.publish()
    told = manifest(set_, second)
    assert [file["path"] for file in told["files"]] == ["webdataset/00002.tar", "webdataset/00003.tar"]
    assert [file["path"] for file in told["earlier"]] == ["webdataset/00000.tar", "webdataset/00001.tar"]
    assert keys_in(folder(set_, second)) == ["a.png", "bb.png", "z.png"]
    assert (second.samples, told["samples"]) == (7, 3)
    place, samples = export_again(set_.dataset, 2, str(tmp_path / "copy"), [])
    assert samples == 7
    assert keys_in(Path(place)) == ["a.png", "b0.png", "b1.png", "b2.png", "b3.png", "bb.png", "z.png"]
    whole = json.loads((Path(place) / "MANIFEST.json").read_text())
    assert whole["samples"] == sum(file["samples"] for file in whole["files"]) == 7
    assert "earlier" not in whole


def test_every_format_grows_and_is_proven_in_the_store_and_as_a_copy(
    growing: Callable[..., Any], pictures: Any, tmp_path: Path
) -> None:
    import lance

    export = {**SECTIONS["export"], "formats": list(FORMATS)}
    set_ = growing({f"b{n}.png": pictures.png(n) for n in range(4)}, export=export)
    first = set_.publish()
    set_.add({"a.png": pictures.png(10), "z.png": pictures.png(11), "bb.png": pictures.png(12)})
    second = set_.publish()
    place, _ = export_again(set_.dataset, 2, str(tmp_path / "copy"), [])
    for where in (folder(set_, second), Path(place)):
        proof = verify(str(where))
        assert proof.wrong == () and proof.samples == 7
    # An index tells of what lies beside it: of the increment alone, or of all.
    assert [lance.dataset(where / "lance").count_rows() for where in (folder(set_, second), Path(place))] == [3, 7]
    assert json.loads((Path(place) / "webdataset/sizes.json").read_text()) == {
        "00000.tar": 2,
        "00001.tar": 2,
        "00002.tar": 2,
        "00003.tar": 1,
    }
    (folder(set_, first) / "mds/00001.mds").unlink()
    key = folder(set_, first).name
    assert verify(str(folder(set_, second))).wrong == ((f"../{key}/mds/00001.mds", "is gone"),)


def test_a_file_that_lost_a_sample_is_written_anew(growing: Callable[..., Any], pictures: Any, tmp_path: Path) -> None:
    set_ = growing({f"b{n}.png": pictures.png(n) for n in range(4)}, **SECTIONS)
    first = set_.publish()
    set_.remove("b0.png")
    second = set_.publish()
    then, now = places(first, set_), places(second, set_)
    assert now["webdataset/00001.tar"] == then["webdataset/00001.tar"]
    assert now["webdataset/00000.tar"] != then["webdataset/00000.tar"]
    assert keys_in(folder(set_, second)) == ["b1.png"]
    assert keys_in(folder(set_, first)) == ["b0.png", "b1.png", "b2.png", "b3.png"], "a version is immutable"
    out = str(tmp_path / "copy")
    assert keys_in(Path(export_again(set_.dataset, 1, out, [])[0])) == ["b0.png", "b1.png", "b2.png", "b3.png"]
    assert keys_in(Path(export_again(set_.dataset, 2, out, [])[0])) == ["b1.png", "b2.png", "b3.png"]


def test_a_file_of_which_nothing_is_left_is_left_out(
    growing: Callable[..., Any], pictures: Any, tmp_path: Path
) -> None:
    set_ = growing({f"b{n}.png": pictures.png(n) for n in range(4)}, **SECTIONS)
    first = set_.publish()
    set_.remove("b2.png")
    set_.remove("b3.png")
    second = set_.publish()
    assert list(places(second, set_)) == ["webdataset/00000.tar"]
    assert (second.number, second.samples, second.export) == (2, 2, first.export)
    assert keys_in(Path(export_again(set_.dataset, 2, str(tmp_path / "copy"), [])[0])) == ["b0.png", "b1.png"]


def test_another_form_is_written_as_a_whole(growing: Callable[..., Any], pictures: Any, tmp_path: Path) -> None:
    set_ = growing({f"b{n}.png": pictures.png(n) for n in range(4)}, **SECTIONS)
    set_.publish()
    set_.add({"z.png": pictures.png(11)})
    second = set_.publish()
    place, _ = export_again(set_.dataset, 2, str(tmp_path / "copy"), ["export.samples_per_shard=10"])
    assert sorted(path.name for path in Path(place).glob("webdataset/*.tar")) == ["00000.tar"]
    assert keys_in(Path(place)) == ["b0.png", "b1.png", "b2.png", "b3.png", "z.png"]
    assert second.changes.added == 1
    with pytest.raises(ConfigError, match="would change what the version holds"):
        export_again(set_.dataset, 2, str(tmp_path / "other"), ["filter.min_side=99"])
