"""What is read of a set, what is refused, and that nothing is lost on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.conftest import Configured, drawn, tar_of, write_export
from vlmdata.errors import SourceError
from vlmdata.training.samples import TRAIN, VALIDATION, caption_weight, open_samples, says_a_side


def opened(configured: Configured, tmp_path: Path, data: Path, **changes: Any) -> Any:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    return open_samples(configured(data=str(data), **changes), out)


def test_a_set_without_splits_holds_samples_out_by_their_ids(configured: Configured, tmp_path: Path) -> None:
    few = opened(configured, tmp_path, write_export(tmp_path / "a", samples=32))
    more = opened(configured, tmp_path, write_export(tmp_path / "b", samples=48, a_tar=5))
    held = [{one["id"] for one in samples.table.take(samples.rows(VALIDATION)).to_pylist()} for samples in (few, more)]
    assert few.held_out
    assert 0 < len(held[0]) < 20
    assert held[0] < held[1]
    assert len(more.rows(TRAIN)) + len(more.rows(VALIDATION)) == 48


def test_a_set_with_splits_is_split_as_it_says(configured: Configured, tmp_path: Path) -> None:
    samples = opened(configured, tmp_path, write_export(tmp_path / "set", samples=48, splits=True))
    assert (len(samples.rows(TRAIN)), len(samples.rows(VALIDATION)), samples.held_out) == (32, 16, False)
    assert [len(rows) for rows in samples.shards(TRAIN)] == [16, 16]


def test_every_sample_is_a_pair_or_left_out_for_a_reason(configured: Configured, tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    folder.mkdir()
    picture = drawn(1)[0]
    rows = [(f"s{n}", picture, [{"text": "a card", "lang": "de"}]) for n in range(20)]
    rows += [
        ("blank", picture, [{"text": "  "}]),
        ("silent", picture, []),
        ("other", picture, [{"text": "x", "lang": "fr"}]),
    ]
    (folder / "0.tar").write_bytes(tar_of(rows))
    samples = opened(configured, tmp_path, folder, caption_weights={"de": 1})
    assert samples.left_out == {"no_caption": 3}
    assert samples.table.num_rows == 20


def truncated(folder: Path) -> None:
    tar = folder / "webdataset/00001.tar"
    tar.write_bytes(tar.read_bytes()[:-512])


def changed(folder: Path) -> None:
    tar = folder / "webdataset/00001.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(bytes(data))


def gone(folder: Path) -> None:
    (folder / "webdataset/00001.tar").unlink()


def told(**change: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        manifest = json.loads((folder / "MANIFEST.json").read_text())
        (folder / "MANIFEST.json").write_text(json.dumps({**manifest, **change}))

    return apply


def miscounted(folder: Path) -> None:
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"][0]["samples"] += 1
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


def astray(folder: Path) -> None:
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"][0]["path"] = "../../secret.tar"
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (truncated, r"00001.tar has [\d,]+ bytes, MANIFEST.json says [\d,]+; export or copy the set again"),
        (changed, r"00001.tar is not the file that MANIFEST.json names \(sha256\); export"),
        (gone, "00001.tar is named by MANIFEST.json and not there; export"),
        (miscounted, "00000.tar holds 16 samples, MANIFEST.json says 17; export"),
        (astray, "names '../../secret.tar', which is no file of an export"),
        (told(complete=False), "says that the export is not complete; run the build"),
        (told(files=[]), r"has no webdataset tars; export it with formats: \[webdataset\]"),
        (told(files=None), "is no export's manifest"),
    ],
)
def test_an_export_that_fails_verification_is_refused_in_one_line(
    configured: Configured, tmp_path: Path, damage: Callable[[Path], None], expected: str
) -> None:
    folder = write_export(tmp_path / "set")
    damage(folder)
    with pytest.raises(SourceError, match=expected) as caught:
        opened(configured, tmp_path, folder)
    assert "\n" not in str(caught.value)


def test_an_empty_split_is_refused(configured: Configured, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no pair in the validation split .* a larger validation_share"):
        opened(configured, tmp_path, write_export(tmp_path / "set"), validation_share=1e-9)
    alone = write_export(tmp_path / "alone", samples=16, splits=True)
    with pytest.raises(SourceError, match=r"no pair in the train split .* give an export with a split 'train'"):
        opened(configured, tmp_path, alone)


def test_a_folder_without_tars_is_refused_by_the_key_that_names_it(configured: Configured, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"data = .*empty': no .tar file found"):
        opened(configured, tmp_path, tmp_path / "empty")


@pytest.mark.parametrize(
    ("language", "weights", "expected"),
    [
        ("de", {}, 1.0),
        ("de", {"de": 0.5}, 0.5),
        ("de-AT", {"de": 0.5}, 0.5),
        ("de-AT", {"de": 0.5, "de-AT": 2}, 2),
        ("fr", {"de": 0.5}, 0.0),
        ("fr", {"de": 0.5, "*": 0.1}, 0.1),
        (None, {"de": 0.5, "*": 0.1}, 0.1),
    ],
)
def test_a_caption_s_weight_is_its_language_s(language: str | None, weights: dict[str, float], expected: float) -> None:
    assert caption_weight(language, weights) == expected


@pytest.mark.parametrize(
    "text", ["on the left", "RIGHT of it", "die linke Hand", "à gauche", "a la derecha", "слева", "左侧"]
)
def test_captions_that_say_a_side_are_told(text: str) -> None:
    assert says_a_side(["a dog", text])


@pytest.mark.parametrize("text", ["leftovers", "a bright day", "lion, лев", "upright", ""])
def test_captions_that_say_none_are_not(text: str) -> None:
    assert not says_a_side([text])


def renamed(folder: Path, names: dict[str, str]) -> Path:
    """The same export with other names of splits."""
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    for file in manifest["files"]:
        file["split"] = names[file["split"]]
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    return folder


def test_where_there_are_splits_nobody_trains_on_another_one(configured: Configured, tmp_path: Path) -> None:
    """Without one to measure with there is nothing to measure with: none is held out of what others set apart."""
    folder = write_export(tmp_path / "set", samples=48, splits=True)
    for names, split in (
        ({"train": "train", "validation": "test"}, "validation"),
        ({"train": "test", "validation": "validation"}, "train"),
    ):
        shutil.copytree(folder, tmp_path / split)
        renamed(tmp_path / split, names)
        with pytest.raises(SourceError, match=rf"no pair in the {split} split of .*; give an export with a split"):
            opened(configured, tmp_path, tmp_path / split)


def test_what_another_split_holds_is_counted_as_left_out(configured: Configured, tmp_path: Path) -> None:
    folder = write_export(tmp_path / "set", samples=48, splits=True)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"][2]["split"] = "test"
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    samples = opened(configured, tmp_path, folder)
    assert (len(samples.rows(TRAIN)), len(samples.rows(VALIDATION)), samples.left_out) == (16, 16, {"other_split": 16})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"validation_share": 0.9999},
            "no pair in the train split of .*; give more data, or a smaller validation_share",
        ),
        (
            {"validation_share": 1e-9},
            "no pair in the validation split of .*; give more data, or a larger validation_share",
        ),
        ({"caption_weights": {"xx": 1}}, "has a caption to learn from; give caption_weights that fit its languages"),
    ],
)
def test_a_split_that_is_empty_says_what_to_change(
    configured: Configured, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SourceError, match=said) as told:
        opened(configured, tmp_path, write_export(tmp_path / "set"), **changes)
    assert "\n" not in str(told.value)


def test_pictures_without_captions_are_nothing_to_learn_from(configured: Configured, tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars/0.tar").write_bytes(tar_of([(f"s{n}", drawn(n)[0], []) for n in range(9)]))
    with pytest.raises(SourceError, match=r"no picture of .* has a caption to learn from; give a set with captions"):
        opened(configured, tmp_path, tmp_path / "tars")


def test_a_tar_that_ends_early_is_named_with_its_folder(configured: Configured, tmp_path: Path) -> None:
    folder = write_export(tmp_path / "set", manifest=False) / "webdataset"
    tar = folder / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:20_780])
    with pytest.raises(SourceError, match=rf"^data: {tar}: not a whole tar: .* make or download it again$"):
        opened(configured, tmp_path, folder)
