"""A withdrawal: nothing of it is left in any object, what stays is whole, and it does not come back."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.errors import BrokenInvariant, ConfigError, DoesNotHold, StoreError, UserError
from vlmdata.export.formats import FORMATS
from vlmdata.export.verify import verify as verify_export
from vlmdata.forgetting.forget import as_lines, forget
from vlmdata.forgetting.outside import outside
from vlmdata.forgetting.tombstones import read_tombstones
from vlmdata.forgetting.verify import verify
from vlmdata.forgetting.who import Asked, manifests
from vlmdata.layout import Stage, Step
from vlmdata.store import LocalStore
from vlmdata.versions.again import export_again
from vlmdata.versions.version import numbers, read_version

SECTIONS = {"export": {"samples_per_shard": 3, "formats": list(FORMATS)}}


def asked(**named: Any) -> Asked:
    words = {"samples": (), "urls": (), "domains": (), "sha256s": (), **named}
    return Asked.of(**words)


def id_of(set_: Any, key: str) -> str:
    rows = set_.rows(read_version(set_.dataset, numbers(set_.dataset)[-1]).shards, Step.RAW, "samples")
    return next(row["id"] for row in rows if row["key"] == key)


def holding(dataset: Dataset, *words: str) -> list[str]:
    """Objects in which any of these is to be found, tables opened; tombstones aside."""
    found = []
    for path in dataset.store.list(f"{dataset.name}/"):
        if path.startswith(layout.forgotten_prefix(dataset.name)):
            continue
        data = dataset.store.get(path)
        if path.endswith(".parquet"):
            data = repr(pq.read_table(Path(dataset.store.locate(path))).to_pylist()).encode()
        found += [path for word in words if word.encode() in data]
    return found


def accounts_hold(dataset: Dataset) -> None:
    for stage in Stage:
        for path, manifest in manifests(dataset, Step(stage.value)).items():
            manifest.samples.check(path)
            manifest.captions.check(path)
            for name, ref in manifest.tables.items():
                assert ref.rows == dataset.table(ref).num_rows, (path, name)
            if "samples" in manifest.tables:
                assert manifest.samples.kept == manifest.tables["samples"].rows


@pytest.fixture
def set_(growing: Callable[..., Any], pictures: Any) -> Any:
    """Two versions; `y.png` is a near-duplicate of `a0.png`, to which it gave its caption."""
    made = growing({**{f"a{n}.png": pictures.png(n, 96, 72) for n in range(4)}, "y.png": pictures.png(0)}, **SECTIONS)
    made.publish()
    made.add({"b0.png": pictures.png(20), "b1.png": pictures.png(21)})
    made.publish()
    return made


def test_nothing_of_it_is_left(set_: Any) -> None:
    id_ = id_of(set_, "a1.png")
    content = (set_.folder / "pictures" / "a1.png").read_bytes()
    marks = (id_, "a1.png", sha256(content).hexdigest(), repr(content[100:140])[2:-1])
    assert len(holding(set_.dataset, *marks)) > 10
    receipt = forget(set_.dataset, asked(samples=[id_]))
    assert holding(set_.dataset, "a1.png", *marks[2:]) == []
    told = holding(set_.dataset, id_)
    assert all(path.startswith("tiny/00_raw/data/") for path in told), "00_raw alone goes on counting it, by its id"
    assert (receipt.samples, receipt.captions) == (1, 1)
    assert receipt.verified["pictures"] > 5
    accounts_hold(set_.dataset)


def test_versions_stay_whole_without_it(set_: Any, tmp_path: Path) -> None:
    before = [read_version(set_.dataset, number) for number in (1, 2)]
    receipt = forget(set_.dataset, asked(samples=[id_of(set_, "a1.png")]))
    assert receipt.version == 3
    after = [read_version(set_.dataset, number) for number in (1, 2, 3)]
    assert [version.samples for version in before] == [4, 6]
    assert [version.samples for version in after] == [3, 5, 5]
    assert after[2].changes.model_dump() == {"added": 0, "removed": 1, "changed": 0}
    for version in after:
        place, samples = export_again(set_.dataset, version.number, str(tmp_path / str(version.number)), [])
        assert samples == version.samples
        manifest = json.loads((Path(place) / "MANIFEST.json").read_text())
        for where in (place, set_.dataset.store.locate(version.export)):
            assert verify_export(where).wrong == ()
        assert sum(f["samples"] for f in manifest["files"] if f["format"] == "parquet") == version.samples
        index = version.index.read(set_.dataset)
        assert index.num_rows == sum(home.rows for home in version.index.homes.values())


def test_captions_that_it_gave_go_with_it(set_: Any) -> None:
    shards = read_version(set_.dataset, 2).shards
    assert set_.captions(shards)["a0.png"] == ["a0.png", "y.png"]
    forget(set_.dataset, asked(samples=[id_of(set_, "y.png")]))
    assert set_.captions(read_version(set_.dataset, 2).shards)["a0.png"] == ["a0.png"]
    assert holding(set_.dataset, "y.png") == []
    accounts_hold(set_.dataset)


def test_it_does_not_come_back(set_: Any) -> None:
    content = (set_.folder / "pictures" / "a1.png").read_bytes()
    forget(set_.dataset, asked(samples=[id_of(set_, "a1.png")]))
    again = set_.publish()
    assert "a1.png" not in set_.captions(again.shards)
    set_.add({"other_name.png": content})
    set_.publish()
    newest = read_version(set_.dataset, numbers(set_.dataset)[-1])
    assert "other_name.png" not in set_.captions(newest.shards)
    rejects = set_.rows(newest.shards, Step.RAW, "rejects")
    assert sorted(row["code"] for row in rejects) == ["forgotten", "forgotten"]
    assert verify(set_.dataset, read_tombstones(set_.dataset)).found == ()


def test_a_build_after_it_reads_no_picture_again(set_: Any) -> None:
    """The files are emptied with their times and sizes kept: whoever reads them again will notice."""
    forget(set_.dataset, asked(samples=[id_of(set_, "a1.png")]))
    for path in (set_.folder / "pictures").iterdir():
        stat = path.stat()
        path.write_bytes(b"\0" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sorted(set_.captions(set_.filtered())) == ["a0.png", "a2.png", "a3.png", "b0.png", "b1.png"]


def test_what_it_displaced_is_decided_anew(set_: Any) -> None:
    forget(set_.dataset, asked(samples=[id_of(set_, "a0.png")]))
    assert set_.captions(set_.filtered())["y.png"] == ["y.png"]


def test_by_its_digest_under_every_name(growing: Callable[..., Any], pictures: Any) -> None:
    made = growing({"one.png": pictures.png(1), "two.png": pictures.png(2), "too.png": pictures.png(1)}, **SECTIONS)
    made.publish()
    digest = sha256(pictures.png(1)).hexdigest()
    receipt = forget(made.dataset, asked(sha256s=[digest.upper()]))
    assert receipt.samples == 2
    assert [holding(made.dataset, word) for word in (digest, "one.png", "too.png")] == [[], [], []]


def test_one_that_never_was_there_stays_away(set_: Any, pictures: Any) -> None:
    receipt = forget(set_.dataset, asked(sha256s=[sha256(pictures.png(77)).hexdigest()]))
    assert (receipt.samples, receipt.manifests, receipt.version) == (0, 0, None)
    set_.add({"new.png": pictures.png(77)})
    assert "new.png" not in set_.captions(set_.filtered())


def test_interrupted_anywhere_the_same_command_goes_on(
    set_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store refuses the n-th write or deletion, for n = 1, 2, …: a second try ends as it should."""
    import shutil

    id_ = id_of(set_, "a1.png")
    for limit in (1, 2, 5, 9, 14, 20, 27, 35, 44, 54):
        root = tmp_path / f"store-{limit}"
        shutil.copytree(set_.dataset.store_url, root)
        dataset, left = Dataset(str(root), "tiny"), [limit]

        def counted(name: str, dataset: Dataset = dataset, left: list[int] = left) -> Callable[..., Any]:
            real = getattr(dataset.store, name)

            def once(*args: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    raise RuntimeError("killed here")
                return real(*args)

            return once

        with monkeypatch.context() as patch:
            for name in ("replace", "delete", "put", "create"):
                patch.setattr(dataset.store, name, counted(name))
            with pytest.raises(RuntimeError):
                forget(dataset, asked(samples=[id_]))
        dataset = Dataset(str(root), "tiny")
        dataset.store.delete(layout.lease_path("tiny"))
        tombstones = read_tombstones(dataset)
        who = asked(samples=[id_]) if not tombstones else asked(sha256s=["0" * 64])
        forget(dataset, who)
        assert verify(dataset, read_tombstones(dataset)).found == ()
        assert [read_version(dataset, number).samples for number in (1, 2)] == [3, 5], limit
        accounts_hold(dataset)


def test_the_proof_finds_what_is_left(set_: Any) -> None:
    """A defect planted: a copy of a table with its row, which a manifest names."""
    id_ = id_of(set_, "a1.png")
    shard = next(
        s for s in read_version(set_.dataset, 2).shards if "a1.png" in str(set_.rows([s], Step.RAW, "samples"))
    )
    data = set_.dataset.store.get(set_.dataset.manifest(shard, Step.RAW).tables["images"].path)
    receipt = forget(set_.dataset, asked(samples=[id_]))
    assert receipt.verified["objects"]
    set_.dataset.store.replace("tiny/00_raw/data/zz/orphan.parquet", data)
    set_.dataset.store.replace("tiny/elsewhere.tar", b"\0" * 1024)
    found = verify(set_.dataset, read_tombstones(set_.dataset)).found
    assert [path for path, _ in found] == ["tiny/00_raw/data/zz/orphan.parquet"]
    forget(set_.dataset, asked(sha256s=["0" * 64]))
    assert not set_.dataset.store.exists("tiny/00_raw/data/zz/orphan.parquet"), "nothing names it"
    set_.dataset.store.replace(
        "tiny/02_captioned/sent/1-each-2.png", (set_.folder / "pictures" / "a1.png").read_bytes()
    )
    with pytest.raises(BrokenInvariant, match="still holds a picture"):
        forget(set_.dataset, asked(sha256s=["0" * 64]))


def other_dataset(set_: Any, name: str) -> Any:
    """The same source as another dataset of the same store, published."""
    tiny = type(set_.tiny)(Dataset(set_.dataset.store_url, name), set_.config.model_copy(update={"dataset": name}))
    made = type(set_)(set_.folder, tiny, set_.said)
    made.publish()
    return made


def test_the_proof_covers_the_other_datasets_of_the_store(set_: Any) -> None:
    other, id_ = other_dataset(set_, "other"), id_of(set_, "a1.png")
    with pytest.raises(DoesNotHold) as told:
        forget(set_.dataset, asked(samples=[id_]))
    said = str(told.value)
    assert told.value.exit_code == 1 and "\n" not in said and "/store/other/0" in said
    assert id_ not in str(set_.rows(read_version(set_.dataset, 2).shards, Step.RAW, "samples")), "it is done here"
    assert list_receipts(set_.dataset) == [], "and not proven"
    command = shlex.split(said.partition("vlmdata forget ")[2].partition(";")[0])
    words = dict(zip(command[::2], command[1::2], strict=True))
    assert (words.pop("--store"), words.pop("--dataset")) == (set_.dataset.store_url, "other")
    assert forget(other.dataset, asked(sha256s=[words.pop("--sha256")])).samples == 1 and not words
    receipt = forget(set_.dataset, asked(samples=[id_]))
    assert len(list_receipts(set_.dataset)) == 2 and receipt.verified["objects"] == objects_of(set_.dataset)


def list_receipts(dataset: Dataset) -> list[str]:
    return [path for path in dataset.store.list(layout.forgotten_prefix(dataset.name)) if "receipt" in path]


def objects_of(dataset: Dataset) -> int:
    """All of the store, but for tombstones, receipts, and the lease of whoever looks."""
    return 1 + len([path for path in dataset.store.list("") if "/forgotten/" not in path])


def test_what_is_no_datasets_is_for_its_owner_to_delete(set_: Any) -> None:
    content = (set_.folder / "pictures" / "a1.png").read_bytes()
    set_.dataset.store.replace("backup/a1.png", content)
    with pytest.raises(DoesNotHold, match=r"not proven: delete .*/store/backup/a1\.png; then this command again$"):
        forget(set_.dataset, asked(samples=[id_of(set_, "a1.png")]))
    set_.dataset.store.replace("backup/all.tar", b"no archive")
    set_.dataset.store.delete("backup/a1.png")
    with pytest.raises(StoreError, match=r"all\.tar: is damaged, so nobody can tell what it holds; delete it"):
        forget(set_.dataset, asked(sha256s=["0" * 64]))


def test_by_the_digest_of_what_was_exported(growing: Callable[..., Any], pictures: Any) -> None:
    made = growing(
        {"one.png": pictures.png(1), "two.png": pictures.png(2)}, export={"pixels": {"mode": "resize", "side": 32}}
    )
    version = made.publish()
    rows = made.rows(version.exported, Step.FINAL, "samples")
    digest = next(row["sha256"] for row in rows if row["id"] == id_of(made, "one.png"))
    assert digest != sha256(pictures.png(1)).hexdigest()
    assert forget(made.dataset, asked(sha256s=[digest])).samples == 1
    assert set(made.captions(read_version(made.dataset, 1).shards)) == {"two.png"}


def test_what_is_on_its_way_to_a_captioner_goes_at_once(set_: Any) -> None:
    """Made smaller, so that no digest but that in its name tells what it is."""
    names = {}
    for key in ("a1.png", "a2.png"):
        original = sha256((set_.folder / "pictures" / key).read_bytes()).hexdigest()
        name = f"{layout.sent_name(2**40, 'each', original, 'f' * 32)}.jpg"
        names[key] = layout.sent_picture("tiny", name)
        set_.dataset.store.put(names[key], b"smaller")
    assert forget(set_.dataset, asked(samples=[id_of(set_, "a1.png")])).sent == 1
    assert [set_.dataset.store.exists(path) for path in names.values()] == [False, True]
    set_.dataset.store.put(names["a1.png"], b"smaller")
    assert verify(set_.dataset, read_tombstones(set_.dataset)).found == ((names["a1.png"], "a picture"),)


def test_the_receipt_names_copies_outside(set_: Any, tmp_path: Path) -> None:
    export_again(set_.dataset, 1, str(tmp_path / "copy"), [])
    receipt = forget(set_.dataset, asked(samples=[id_of(set_, "a1.png")]))
    assert receipt.outside == outside(set_.dataset) == [str(tmp_path / "copy")]
    assert f"a copy of an export went to {tmp_path / 'copy'}" in "\n".join(as_lines(receipt))


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place that takes in three files of a copy, and then no more."""
    place, replace, left = str(tmp_path / "full"), LocalStore.replace, [3]

    def counted(store: LocalStore, path: str, data: Any, **more: Any) -> None:
        left[0] -= store.url == place
        if left[0] < 0:
            raise StoreError("No space left on device")
        replace(store, path, data, **more)

    monkeypatch.setattr(LocalStore, "replace", counted)
    return place


def test_a_copy_that_was_cut_off_is_named_too(set_: Any, full: str) -> None:
    with pytest.raises(StoreError, match="No space left"):
        export_again(set_.dataset, 1, full, [])
    assert [path.name for path in Path(full).iterdir()] and outside(set_.dataset) == [full]


def test_where_a_build_that_was_cut_off_copied_to_is_named_too(
    growing: Callable[..., Any], pictures: Any, full: str
) -> None:
    made = growing({f"{n}.png": pictures.png(n) for n in range(4)}, export={"samples_per_shard": 1, "path": full})
    with pytest.raises(StoreError, match="No space left"):
        made.publish()
    assert [path.name for path in Path(full).iterdir()] and outside(made.dataset) == [full]


def test_a_place_that_takes_no_copy_is_not_named(set_: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "MANIFEST.json").write_text("{}")
    with pytest.raises(UserError, match="name another folder"):
        export_again(set_.dataset, 1, str(tmp_path / "mine"), [])
    assert outside(set_.dataset) == []


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({}, "nothing is named"),
        ({"samples": ["nobody"]}, "--sample 'nobody': no checkpoint"),
        ({"sha256s": ["abc"]}, "--sha256 'abc': expected 64 hex digits"),
        ({"domains": ["http://x.org/a"]}, "--domain 'http://x.org/a': expected a domain"),
    ],
)
def test_what_cannot_be_asked(set_: Any, named: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        forget(set_.dataset, asked(**named))
    assert not read_tombstones(set_.dataset)
