"""`vlmdata decontaminate` of an evaluation set that is one parquet file: what it writes keeps those pictures out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.export.selection.test_select import export, left_out, like
from vlmdata import cli
from vlmdata.export.selection.benchmark_list import read_list
from vlmdata.layout import Step

Command = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """`vlmdata decontaminate` in a folder of its own: its exit code, and what it said on both streams."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["vlmdata", "decontaminate", "--name", "toy-val", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


def evaluation_set(pictures: Any) -> list[bytes]:
    """A likeness of a picture of the set, one that is in no set, and what is none."""
    return [like(pictures.png(3)), pictures.png(500), b"no picture"]


def write_parquet(file: Path, data: list[bytes], column: str = "image", *, plain: bool = False) -> None:
    """As `datasets` writes pictures, or their bytes alone."""
    cells = data if plain else [{"bytes": one, "path": f"{number}.png"} for number, one in enumerate(data)]
    pq.write_table(pa.table({column: pa.array(cells), "label": [str(number) for number in range(len(data))]}), file)


@pytest.mark.parametrize(("column", "plain"), [("image", False), ("picture", True)])
def test_a_parquet_file_becomes_a_list_that_keeps_its_pictures_out(
    growing: Callable[..., Any], pictures: Any, command: Command, tmp_path: Path, column: str, plain: bool
) -> None:
    data = evaluation_set(pictures)
    write_parquet(tmp_path / "val.parquet", data, column, plain=plain)
    named = [] if column == "image" else ["--image-column", column]
    code, out, _ = command("--against", "val.parquet", "--out", "toy.parquet", *named)
    assert code == 0
    assert out.splitlines() == [
        "Wrote toy.parquet: 2 pictures of toy-val, their hashes; with --config their embeddings, too. "
        "1 could not be read, and are not on it.",
        "export.decontaminate.lists: [toy.parquet]",
    ]
    listed = read_list(str(tmp_path / "toy.parquet")).rows.to_pylist()
    assert sorted(row["sha256"] for row in listed) == sorted(sha256(one).hexdigest() for one in data[:2])
    assert {row["benchmark"] for row in listed} == {"toy-val"}
    name = next(row["key"] for row in listed if row["sha256"] == sha256(data[0]).hexdigest())

    lists = {"lists": [str(tmp_path / "toy.parquet")]}
    set_ = growing({f"a{n}.png": pictures.png(n) for n in range(6)}, **export(decontaminate=lists, splits=None))
    version = set_.publish()
    assert left_out(set_, version) == {"a3.png": ("rejected", "contaminated")}
    [row] = set_.rows(version.exported, Step.FINAL, "rejects")
    assert row["detail"] == f"toy-val: {name}"


def test_a_file_and_a_folder_of_the_same_pictures_make_the_same_hashes(
    pictures: Any, command: Command, tmp_path: Path
) -> None:
    data = evaluation_set(pictures)
    write_parquet(tmp_path / "val.parquet", data)
    (tmp_path / "val").mkdir()
    for number, one in enumerate(data):
        (tmp_path / "val" / f"{number}.png").write_bytes(one)
    assert [command("--against", place, "--out", f"{place}.list")[0] for place in ("val.parquet", "val")] == [0, 0]
    of_file, of_folder = (
        read_list(str(tmp_path / f"{place}.list")).rows.select(["benchmark", "sha256", "phash"]).sort_by("sha256")
        for place in ("val.parquet", "val")
    )
    assert of_file.num_rows == 2 and of_file.equals(of_folder)


@pytest.mark.parametrize("place", ["no_column.parquet", "no_parquet.parquet", "nowhere.parquet"])
def test_what_is_no_such_file_is_one_line_and_writes_none(command: Command, tmp_path: Path, place: str) -> None:
    pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "no_column.parquet")
    (tmp_path / "no_parquet.parquet").write_text("id,image\n")
    code, out, err = command("--against", place, "--out", "toy.parquet")
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("vlmdata: ") and place in line
    assert not (tmp_path / "toy.parquet").exists()
