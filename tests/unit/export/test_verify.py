"""What `vlmdata verify` says of exports that are whole, and of every way in which they may not be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.cli import app
from vlmdata.config import ExportConfig
from vlmdata.errors import BuildIncomplete, DoesNotHold, UserError
from vlmdata.export.finish import finish_export, locate_export
from vlmdata.export.formats import FORMATS
from vlmdata.export.plan import plan_export
from vlmdata.export.shards import export_shard
from vlmdata.export.verify import verify

Source = Callable[[int], dict[str, bytes]]
Cut = Callable[..., tuple[Dataset, list[Shard]]]
ALL = ExportConfig(samples_per_shard=4, formats=tuple(FORMATS))
ABOUT = ("README.md", "croissant.json")
"""What tells of an export, and of more than that: verified to be there."""


def made(dataset: Dataset, shards: list[Shard], config: ExportConfig = ALL) -> Path:
    """Where an export lies that is finished now."""
    done = [export_shard(dataset, shard, config) for shard in plan_export(dataset, shards, config)]
    return Path(locate_export(dataset.store, finish_export(dataset, done, config, {})))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of six samples in every format."""
    from tests.unit.export.conftest import checked_shard, originals

    dataset = Dataset(str(tmp_path_factory.mktemp("whole")), "stamps")
    return made(dataset, [checked_shard(dataset, "00000", originals(6))])


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be hurt."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def wrong(place: Path) -> dict[str, str]:
    """What is wrong, by the file that it is said of."""
    return dict(verify(str(place)).wrong)


def files(place: Path) -> list[str]:
    """Every file but the two that tell of the others."""
    found = [path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()]
    return sorted(set(found) - {"MANIFEST.json", *ABOUT})


def test_an_export_in_every_format_holds_and_so_does_its_copy(source: Source, cut: Cut, tmp_path: Path) -> None:
    dataset, shards = cut(source(10), 3)
    place = made(dataset, shards)
    copied = made(dataset, shards, ALL.model_copy(update={"path": str(tmp_path / "out")}))
    assert copied == tmp_path / "out"
    for one in (place, copied):
        proof = verify(str(one))
        assert proof.holds and proof.strange == ()
        assert (proof.samples, proof.captions, proof.formats) == (10, 20, tuple(sorted(FORMATS)))
        assert proof.files == len(files(one))
        assert proof.bytes == sum((one / path).stat().st_size for path in files(one))
        assert proof.bytes == json.loads((one / "MANIFEST.json").read_text())["bytes"]


def test_an_export_in_every_format_is_the_same_to_the_byte_however_it_was_cut(source: Source, cut: Cut) -> None:
    trees = []
    for size in (2, 10):
        place = made(*cut(source(10), size, f"store{size}"))
        trees.append({path: (place / path).read_bytes() for path in [*files(place), "MANIFEST.json", *ABOUT]})
    assert trees[0] == trees[1]
    assert {path.partition("/")[0] for path in trees[0]} == {*FORMATS, "MANIFEST.json", *ABOUT}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bit_that_flips_is_found_and_the_file_is_named(whole: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files(whole)))
    before = (whole / path).read_bytes()
    hurt = bytearray(before)
    hurt[data.draw(st.integers(0, len(before) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        (whole / path).write_bytes(hurt)
        assert wrong(whole) == {path: "holds other bytes than were written"}
    finally:
        (whole / path).write_bytes(before)


def test_any_file_that_is_gone_or_cut_short_is_named(copy: Path) -> None:
    for path in [*files(copy), *ABOUT]:
        before = (copy / path).read_bytes()
        (copy / path).unlink()
        assert wrong(copy) == {path: "is gone"}
        if path not in ABOUT:
            (copy / path).write_bytes(before[:-1])
            [(named, what)] = wrong(copy).items()
            assert named == path and ("bytes where" in what or "other bytes" in what)
        (copy / path).write_bytes(before)
    assert wrong(copy) == {}


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(copy: Path) -> None:
    (copy / "webdataset/00000.tar").chmod(0)
    assert wrong(copy) == {"webdataset/00000.tar": "cannot be read (Permission denied)"}


def test_what_a_reader_of_the_folder_would_take_along_is_wrong_and_what_it_would_not_is_told(copy: Path) -> None:
    extra = ["webdataset/00002.tar", "llava/images/00000/notes.txt", f"llava/images/00001/{'0' * 32}.jpg"]
    for path in extra:
        (copy / path).write_bytes(b"")
    (copy / "notes.txt").write_text("mine")
    proof = verify(str(copy))
    assert sorted(path for path, _ in proof.wrong) == sorted(extra)
    assert {what for _, what in proof.wrong} == {"is not in MANIFEST.json, and who reads the folder would read it"}
    assert proof.strange == ("notes.txt",)


def told(place: Path, **changes: Any) -> None:
    """Change what MANIFEST.json says."""
    file = place / "MANIFEST.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_count_that_no_shard_bears_out_is_wrong(copy: Path) -> None:
    listed = json.loads((copy / "MANIFEST.json").read_text())["files"]
    more = [{**file, "samples": file["samples"] + 1} for file in listed]
    told(copy, files=more)
    said = wrong(copy)
    assert {path for path in said if path != "MANIFEST.json"} == {file["path"] for file in listed}
    assert said["parquet/00000.parquet"] == "holds 4 samples where MANIFEST.json says 5"
    assert said["MANIFEST.json"] == "lists 8 samples in webdataset where it says 6"


def test_a_shard_that_is_not_listed_is_missed(copy: Path) -> None:
    listed = json.loads((copy / "MANIFEST.json").read_text())["files"]
    told(copy, files=[file for file in listed if file["path"] != "mds/00001.mds"])
    assert wrong(copy) == {
        "MANIFEST.json": "lists 8 captions in mds where it says 12",
        "mds/00001.mds": "is not in MANIFEST.json, and who reads the folder would read it",
    }


def test_a_file_that_was_listed_as_something_else_cannot_be_read(copy: Path) -> None:
    """The bytes are those that were listed, so only a reader can tell."""
    listed = json.loads((copy / "MANIFEST.json").read_text())["files"]
    junk = b"neither a tar nor anything else" * 40
    for file in listed:
        (copy / file["path"]).write_bytes(junk)
        file |= {"bytes": len(junk), "sha256": sha256(junk).hexdigest()}
    told(copy, files=listed)
    said = wrong(copy)
    for file in listed:
        assert said[file["path"]].startswith(f"cannot be read as {file['format']} ("), said[file["path"]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "holds no MANIFEST.json; expected the folder or URL of an export"),
        ("no json", "is no manifest of an export that this version knows"),
        ('{"icons": []}', "is no manifest of an export that this version knows"),
        ("[]", "is no manifest of an export that this version knows"),
    ],
)
def test_what_is_no_export_is_said_in_one_line(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "MANIFEST.json").write_text(content)
    for place in [tmp_path] if content else [tmp_path, tmp_path / "nowhere", Path(__file__)]:
        with pytest.raises(UserError, match=says) as caught:
            verify(str(place))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["../precious.tar", "/etc/passwd", "webdataset/../../x.tar", "webdataset/.tar", ""])
def test_a_manifest_that_names_files_elsewhere_is_not_followed(copy: Path, path: str) -> None:
    [first, *rest] = json.loads((copy / "MANIFEST.json").read_text())["files"]
    told(copy, files=[{**first, "path": path}, *rest])
    with pytest.raises(UserError, match=r"files\.0\.path: the path of a file of an export"):
        verify(str(copy))


def test_a_format_of_another_time_is_named_beside_those_that_are_known(copy: Path) -> None:
    told(copy, settings={"formats": ["tfrecord"]})
    with pytest.raises(UserError, match="one of webdataset, parquet, llava, mds, lance"):
        verify(str(copy))


def test_an_export_that_was_interrupted_is_one_to_go_on_with(copy: Path) -> None:
    told(copy, complete=False, files=[{"path": "webdataset/00000.tar"}])
    with pytest.raises(BuildIncomplete, match="was interrupted"):
        verify(str(copy))


def test_the_command_ends_with_what_it_found(copy: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["verify", str(copy)])
    assert done.exit_code == 0 and "6 samples with 12 captions" in done.stdout and "0 wrong" in done.stdout
    (copy / "mds/00000.mds").unlink()
    done = run(app, ["verify", str(copy)])
    assert isinstance(done.exception, DoesNotHold) and done.exception.exit_code == 1
    assert done.stdout.splitlines()[0] == "mds/00000.mds: is gone"
    done = run(app, ["verify", str(copy), "--json"])
    answer = json.loads(done.stdout)
    assert (answer["holds"], answer["wrong"]) == (False, [{"path": "mds/00000.mds", "what": "is gone"}])
    assert isinstance(run(app, ["verify", str(tmp_path / "none")]).exception, UserError)
