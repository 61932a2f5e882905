"""`vlmdata forget` on a real build with captions from an endpoint: nothing is left, asked twice, or comes back."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, run, vlmdata
from tests.integration.reported import TOLD, two_nights
from tests.integration.sample import config_of, write_config
from tests.integration.seaweed import BUCKET, S3
from tests.servers.faults import caption as told_by_captioner
from tests.servers.faults import fault_server
from vlmdata import layout
from vlmdata.captioning.journal.log import Log
from vlmdata.checkpoint import Dataset
from vlmdata.forgetting.forget import as_lines, forget
from vlmdata.forgetting.who import Asked, manifests
from vlmdata.layout import Step
from vlmdata.report.make import make_report
from vlmdata.runs import Run
from vlmdata.store import Store, open_store

pytestmark = pytest.mark.integration

Command = Callable[..., Any]


def windows(data: bytes) -> list[bytes]:
    """Parts of a picture that no other has: far behind its header."""
    return [data[at : at + 48] for at in (len(data) // 2, len(data) * 3 // 4)]


def holding(store: Store, marks: list[bytes]) -> list[str]:
    """Objects in which one of these stands as it is."""
    paths = [path for path in store.list("sample/") if "/forgotten/" not in path]
    return [path for path in paths if any(mark in store.get(path) for mark in marks)]


def naming(store: Store, id_: str) -> list[str]:
    """Objects that name a sample; 00_raw goes on counting it, by its id."""
    return [path for path in holding(store, [id_.encode()]) if not path.startswith("sample/00_raw/data/")]


def test_a_captioned_picture_leaves_everything(sample: Path, server: PrefectServer, s3: S3, tmp_path: Path) -> None:
    from vlmdata.captioning.server import running_server

    url = f"s3://{BUCKET}/forget"
    with running_server() as base_url:
        caption = {"policy": "missing", "base_url": base_url, "model": "starter", "api_key_env": "TEST_API_KEY"}
        file = write_config(tmp_path / "config.yaml", config_of(sample, url, caption=caption))
        env = environment(**s3.environment, **server.environment, TEST_API_KEY="sk-none")

        def command(*words: str) -> Any:
            done = run(vlmdata(*words), env)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        def told(*words: str) -> Any:
            return json.loads(command(*words, "--store", url, "--dataset", "sample", "--json"))

        command("build", str(file))
        store = open_store(url)
        asked = told("status")["stages"]["02_captioned"]["spent"]["requests"]
        silent = captioned_by_model(sample)
        story = told("explain", silent)
        data = (sample / "pictures" / silent).read_bytes()
        marks = windows(data)
        assert asked >= 2
        assert {path.split("/")[1] for path in holding(store, marks)} == {"00_raw", "04_final"}
        assert naming(store, story["id"])

        receipt = told("forget", "--sample", story["id"])
        assert (receipt["samples"], receipt["version"]) == (1, 2)
        assert receipt["journal"] >= 1 and receipt["exports"] and receipt["verified"]["pictures"] > 30
        assert holding(store, marks) == naming(store, story["id"]) == []
        assert told("diff", "1", "2")["removed"] == 0, "the older one is without it, too"

        command("build", str(file))
        after = told("status")
        assert after["stages"]["02_captioned"]["spent"]["requests"] == asked, "no other picture was asked about again"
        assert after["stages"]["00_raw"]["reasons"]["forgotten"] == 1
        assert holding(store, marks) == naming(store, story["id"]) == []
        versions = [
            json.loads(line)
            for line in command("versions", "--store", url, "--dataset", "sample", "--json").splitlines()
        ]
        assert [row["samples"] for row in versions][:2] == [versions[1]["samples"]] * 2, "of old versions, too"
        place = tmp_path / "copy"
        command("export", "1", "--store", url, "--dataset", "sample", "--to", str(place))
        assert not [path for path in place.rglob("*") if path.is_file() and any(m in path.read_bytes() for m in marks)]


def captioned_by_model(sample: Path) -> str:
    """A picture whose source says nothing, and that was large enough to be asked about."""
    said = {json.loads(line)["file"] for line in (sample / "captions.jsonl").read_text().splitlines()}
    pictures = sample / "pictures"
    names = [str(path.relative_to(pictures)) for path in sorted(pictures.rglob("*")) if path.is_file()]
    return next(name for name in names if name not in said)


def test_mistakes_are_one_line(sample: Path, server: PrefectServer, tmp_path: Path) -> None:
    env = environment(**server.environment)
    nothing = run(vlmdata("forget", "--store", str(tmp_path), "--dataset", "sample", "--sample", "x"), env)
    assert nothing.returncode == 2 and len(nothing.stderr.strip().splitlines()) == 1
    unnamed = run(vlmdata("forget", "--store", str(tmp_path), "--dataset", "sample"), env)
    assert unnamed.returncode == 2 and "nothing is named" in unnamed.stderr


SAID = {
    "press/told.png": told_by_captioner(TOLD),
    "shop/en-05.png": "A red bus, number 5.",
    # A near-duplicate, which gave its caption to a picture that stays.
    "shop/again.png": "The picture again.png",
}
"""Pictures by their names, and what is said of each and of no other."""


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a set with two versions and a report of each, whose journal was compacted time and again."""
    folder = tmp_path_factory.mktemp("nights")
    with fault_server() as faults, pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlmdata.captioning.journal.log.SEGMENTS_BETWEEN_SNAPSHOTS", 1)
        dataset = two_nights(folder, faults)
    for number in (1, 2):
        run = Run(dataset, number)
        run.attach(layout.REPORT, make_report(run))
    return Path(dataset.store_url)


@pytest.fixture
def published(nights: Path, tmp_path: Path) -> Dataset:
    """The same in a store of its own."""
    shutil.copytree(nights, tmp_path / "store")
    return Dataset(str(tmp_path / "store"), "tiny")


def id_of(dataset: Dataset, key: str) -> str:
    samples = [dataset.table(one.tables["samples"]) for one in manifests(dataset, Step.RAW).values()]
    return next(row["id"] for table in samples for row in table.to_pylist() if row["key"] == key)


def saying(store: Store, *words: str) -> set[str]:
    """Objects that say any of these: tables are opened, JSON is read whichever way it is written."""
    return {path for path in store.list("") for word in words if word in readable(path, store.get(path))}


def readable(path: str, data: bytes) -> str:
    text = data.decode("latin-1")
    if path.endswith(".parquet"):
        rows = pq.read_table(io.BytesIO(data))
        text = repr(rows.select([name for name in rows.column_names if name != "image"]).to_pylist())
    return text.encode("latin-1", "replace").decode("unicode-escape", "replace") if path.endswith(".json") else text


def forgotten(dataset: Dataset, key: str) -> Any:
    return forget(dataset, Asked.of([id_of(dataset, key)], [], [], []))


@pytest.mark.parametrize("key", SAID)
def test_what_was_said_of_it_is_in_no_object(published: Dataset, key: str) -> None:
    store, others = published.store, [text for name, text in SAID.items() if name != key]
    before = saying(store, SAID[key])
    assert {path.split("/")[1] for path in before} > {"03_quality_checked", "04_final", "runs"}
    stays = [saying(store, text) for text in others]
    forgotten(published, key)
    assert saying(store, SAID[key]) == set()
    assert all(stays) and all(saying(store, text) for text in others), "what is said of others stays"


def test_a_journal_that_was_compacted_is_without_its_answer(published: Dataset) -> None:
    """Log, snapshots and tables; what others were answered, and what it all cost, stays on record."""
    Log(published.store, published.name).compact()
    store, text = published.store, SAID["press/told.png"]
    journal = layout.journal(published.name)
    folders = {path.removeprefix(f"{journal}/").split("/")[0] for path in saying(store, text) if journal in path}
    assert folders == {"log", "tables"}
    assert store.list(layout.journal_snapshots(published.name))
    account, before = Log(store, published.name).book.account, len(store.list(journal))
    receipt = forgotten(published, "press/told.png")
    assert receipt.journal >= 3, "a segment, a snapshot and a table at least"
    assert [path for path in saying(store, text) if path.startswith(journal)] == []
    log = Log(store, published.name)
    assert log.book.account == account and len(store.list(journal)) == before
    keys = [row["key"] for path in store.list(layout.journal_tables(published.name)) for row in rows_of(store, path)]
    ends = [entry.end for entry in log.find(keys).values() if entry.end]
    assert len(set(keys)) == len(ends) == 3 and {end.text for end in ends} == {"", None}
    assert len([end for end in ends if end.message]) == 2, "of two that failed"


def rows_of(store: Store, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(io.BytesIO(store.get(path))).to_pylist()
    return found


def test_a_tombstone_and_its_receipt_say_hashes_alone(published: Dataset) -> None:
    receipts = [forgotten(published, key) for key in SAID]
    store, folder = published.store, layout.forgotten_prefix(published.name)
    told = {path: store.get(path).decode() for path in store.list(folder)}
    assert len(told) == 2 * len(SAID)
    told |= {f"receipt {each.number}": "\n".join([json.dumps(asdict(each)), *as_lines(each)]) for each in receipts}
    names = [part for key in SAID for part in (key, Path(key).name, Path(key).stem)]
    assert [(path, mark) for path, text in told.items() for mark in [*names, *SAID.values()] if mark in text] == []
    tombstones = [json.loads(text) for path, text in told.items() if re.fullmatch(rf"{folder}/\d+\.json", path)]
    for tombstone in tombstones:
        assert tombstone.pop("at") and tombstone.pop("number")
        digests = [digest for several in tombstone.values() for digest in several]
        assert len(digests) >= 3 and [each for each in digests if not re.fullmatch(r"[0-9a-f]{16,64}", each)] == []
