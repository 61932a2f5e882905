"""A checkpoint is a name: from what was read and how it was set, and from nothing else."""

from __future__ import annotations

import copy
import pickle
import shutil
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata import layout
from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, put_table, run_once, step_key
from vlmdata.errors import BrokenInvariant, StoreError
from vlmdata.layout import REVISION, Step
from vlmdata.store import LocalStore

STEP = Step.FILTERED
SHARD = Shard("00000", 3)
numbers = st.integers(0, 10_000)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "store"), "set")


def result(*ids: str, open_: int = 0, **counts: int) -> Result:
    table = pa.table({"id": pa.array(ids, pa.string())})
    return Result({"samples": table}, Counts(came=len(ids), kept=len(ids), **counts), open=open_)


class Work:
    """Returns its results one after the other, and knows how often it was asked."""

    def __init__(self, *results: Result) -> None:
        self.results = list(results)
        self.given: list[Manifest | None] = []

    def __call__(self, before: Manifest | None) -> Result:
        self.given.append(before)
        return self.results.pop(0)


def ids(dataset: Dataset, shard: Shard) -> list[str]:
    found: list[str] = dataset.read(shard, STEP, "samples")["id"].to_pylist()
    return found


@given(numbers, numbers, numbers, numbers, numbers)
def test_the_equation(came: int, kept: int, rejected: int, held: int, failed: int) -> None:
    counts = Counts(came=came, kept=kept, rejected=rejected, held=held, failed=failed)
    if came == kept + rejected + held + failed:
        counts.check("x")
    else:
        with pytest.raises(BrokenInvariant, match="x"):
            counts.check("x")


@given(st.lists(st.sampled_from(["rejected", "held", "failed"])), numbers)
def test_counts_of_any_mix_of_outcomes_add_up(outcomes: list[str], kept: int) -> None:
    counts = Counts.of(kept, pa.chunked_array([outcomes], pa.string()), came=kept + len(outcomes))
    counts.check("x")
    twice = counts + counts
    twice.check("x")
    assert twice.held == 2 * outcomes.count("held")


def test_an_outcome_that_is_none_of_the_four_is_missed() -> None:
    with pytest.raises(BrokenInvariant):
        Counts.of(0, pa.chunked_array([["lost"]]), came=1).check("x")


def test_done_once_and_never_again(dataset: Dataset) -> None:
    work = Work(result("a", "b"))
    first = run_once(dataset, SHARD, STEP, ["r"], {}, work)
    second = run_once(dataset, SHARD, STEP, ["r"], {}, work)
    assert (first, ids(dataset, second), work.given) == (second, ["a", "b"], [None])
    assert SHARD.manifests == {}


def test_other_input_settings_step_or_revision_is_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        step_key(STEP, ["r"], {"a": 1}),
        step_key(STEP, ["q"], {"a": 1}),
        step_key(STEP, ["r", "r"], {"a": 1}),
        step_key(STEP, ["r"], {"a": 2}),
        step_key(Step.CAPTIONED, ["r"], {"a": 1}),
    ]
    monkeypatch.setitem(REVISION, STEP, REVISION[STEP] + 1)
    names.append(step_key(STEP, ["r"], {"a": 1}))
    assert len(set(names)) == len(names)


def test_the_order_in_which_settings_are_written_says_nothing() -> None:
    assert step_key(STEP, [], {"a": 1, "b": 2}) == step_key(STEP, [], {"b": 2, "a": 1})


def test_open_failures_are_done_again_and_settled_ones_are_not(dataset: Dataset) -> None:
    work = Work(result("a", open_=2), result("b", open_=1), result("c"))
    shards = [run_once(dataset, SHARD, STEP, [], {}, work) for _ in range(4)]
    assert [ids(dataset, shard) for shard in shards] == [["a"], ["b"], ["c"], ["c"]]
    assert [dataset.manifest(shard, STEP).generation for shard in shards] == [0, 1, 2, 2]
    assert [before and before.open for before in work.given] == [None, 2, 1]


def test_a_lost_race_reads_the_winner(dataset: Dataset) -> None:
    def beaten(_: Manifest | None) -> Result:
        run_once(dataset, SHARD, STEP, [], {}, Work(result("winner")))
        return result("loser")

    assert ids(dataset, run_once(dataset, SHARD, STEP, [], {}, beaten)) == ["winner"]
    assert ids(Dataset(dataset.store_url, dataset.name), run_once(dataset, SHARD, STEP, [], {}, beaten)) == ["winner"]


@pytest.mark.parametrize("side", ["samples", "captions"])
def test_accounts_that_do_not_add_up_publish_nothing(dataset: Dataset, side: str) -> None:
    broken = result("a")
    setattr(broken, side, Counts(came=2, kept=1))
    with pytest.raises(BrokenInvariant, match=side):
        run_once(dataset, SHARD, STEP, [], {}, Work(broken))
    assert dataset.store.list("") == []


def test_work_that_fails_publishes_nothing(dataset: Dataset) -> None:
    def fail(_: Manifest | None) -> Result:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_once(dataset, SHARD, STEP, [], {}, fail)
    assert dataset.store.list("") == []
    assert ids(dataset, run_once(dataset, SHARD, STEP, [], {}, Work(result("a")))) == ["a"]


def test_a_table_that_fails_is_told_when_no_other_is_being_written(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, busy, failed = LocalStore.put, threading.Event(), threading.Event()
    ended: list[str] = []

    def once_the_other_failed(store: LocalStore, path: str, data: bytes) -> None:
        if not busy.is_set():
            busy.set()
            failed.wait(5)
            time.sleep(0.05)  # who does not wait has long been told by now
            put(store, path, data)
            ended.append(path)
        else:
            failed.set()
            raise StoreError("full")

    monkeypatch.setattr(LocalStore, "put", once_the_other_failed)
    both = Result({"samples": pa.table({"id": ["a"]}), "rejects": pa.table({"code": ["b"]})}, Counts(came=1, kept=1))
    with pytest.raises(StoreError, match="full"):
        run_once(dataset, SHARD, STEP, [], {}, Work(both))
    assert ended == [*dataset.store.list("")] and len(ended) == 1


def test_a_store_emptied_in_the_middle_of_a_process(dataset: Dataset) -> None:
    run_once(dataset, SHARD, STEP, [], {}, Work(result("old")))
    assert ids(dataset, run_once(dataset, SHARD, STEP, [], {}, Work())) == ["old"]
    shutil.rmtree(dataset.store_url)
    assert ids(dataset, run_once(dataset, SHARD, STEP, [], {}, Work(result("new")))) == ["new"]


def test_reasons_are_counted_from_the_tables(dataset: Dataset) -> None:
    rejects = pa.table({"code": ["b", "a", "b"]})
    done = Result({"rejects": rejects, "caption_rejects": rejects.slice(1, 1)})
    shard = run_once(dataset, SHARD, STEP, [], {}, Work(done))
    manifest = dataset.manifest(shard, STEP)
    assert (manifest.reasons, manifest.caption_reasons) == ({"a": 1, "b": 2}, {"a": 1})


def test_a_manifest_reads_back_as_it_was_written(dataset: Dataset) -> None:
    shard = run_once(dataset, SHARD, STEP, ["r"], {}, Work(result("a")))
    path = shard.manifests[STEP]
    assert path == layout.manifest_path("set", STEP, step_key(STEP, ["r"], {}), 0)
    manifest = Manifest.model_validate_json(dataset.store.get(path))
    assert manifest == dataset.manifest(shard, STEP)
    assert b'"in": 1' in dataset.store.get(path)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_references_travel_as_two_strings(dataset: Dataset, again: Callable[[Any], Any]) -> None:
    shard = run_once(dataset, SHARD, STEP, [], {}, Work(result("a")))
    assert ids(again(dataset), again(shard)) == ["a"]
    assert again(dataset) == dataset
    assert "store" not in vars(again(dataset))


COLUMNS = {
    "text": (pa.string(), ["", "a", None, "größer", "x" * 40]),
    "flag": (pa.bool_(), [True, False, None]),
    "number": (pa.int32(), [0, 1, None, -7]),
    "hash": (pa.uint64(), [0, 2**64 - 1, None]),
    "score": (pa.float32(), [0.25, None, -1.0]),
    "listed": (
        pa.list_(pa.struct([("text", pa.string()), ("lang", pa.string())])),
        [None, [], [{"text": "a"}, {"lang": "b"}]],
    ),
    "vector": (pa.list_(pa.float16(), 2), [[np.float16(0.5), np.float16(1)], [np.float16(0), np.float16(2)]]),
}


@st.composite
def cut_tables(draw: st.DrawFn) -> tuple[pa.Table, pa.Table]:
    """A table whole, and the same rows sliced out of a larger one and cut into chunks."""
    count = draw(st.integers(0, 20))
    arrays, cut = {}, {}
    for name, (type_, values) in COLUMNS.items():
        rows = draw(st.lists(st.sampled_from(values), min_size=count, max_size=count))
        arrays[name] = pa.array(rows, type_)
        padding = draw(st.integers(0, 9))
        longer = pa.concat_arrays([pa.array(values * 5, type_)[:padding], arrays[name], pa.array(values, type_)])
        window = longer.slice(padding, count)
        places = [0, *sorted(draw(st.lists(st.integers(0, count), max_size=3))), count]
        chunks = [window.slice(a, b - a) for a, b in pairwise(places)]
        cut[name] = pa.chunked_array(chunks, type_)
    return pa.table(arrays), pa.table(cut)


@settings(max_examples=25)
@given(cut_tables())
def test_the_same_rows_have_the_same_digest_however_they_are_cut(tables: tuple[pa.Table, pa.Table]) -> None:
    dataset = Dataset("memory-is-enough", "set")
    refs = [put_table(dataset, STEP, table) for table in tables]
    assert refs[0].columns == refs[1].columns


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_lies_under_a_null_says_nothing(dataset: Dataset) -> None:
    clean = pa.array([1, None, 3], pa.int64())
    buffers = [clean.buffers()[0], pa.py_buffer(np.array([1, 99, 3], np.int64))]
    dirty = pa.Array.from_buffers(pa.int64(), 3, buffers)
    refs = [put_table(dataset, STEP, pa.table({"n": column})) for column in (clean, dirty)]
    assert dirty.equals(clean)
    assert refs[0].columns == refs[1].columns


@given(st.sampled_from(sorted(COLUMNS)), st.data())
def test_other_rows_have_another_digest(name: str, data: st.DataObject) -> None:
    type_, values = COLUMNS[name]
    rows = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=6))
    place = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(st.sampled_from([value for value in values if value != rows[place]]))
    tables = [pa.table({"c": pa.array(each, type_)}) for each in (rows, [*rows[:place], other, *rows[place + 1 :]])]
    first, second = (put_table(Dataset("memory-is-enough", "set"), STEP, table) for table in tables)
    assert first.digest(["c"]) != second.digest(["c"])


def test_pictures_are_named_by_their_own_hash_and_never_digested(dataset: Dataset) -> None:
    ref = put_table(dataset, STEP, pa.table({"id": ["a"], "image": pa.array([b"bytes"], pa.large_binary())}))
    assert list(ref.columns) == ["id"]
    assert dataset.table(ref)["image"].to_pylist() == [b"bytes"]
