"""An export copied to another bucket of a real S3 server: killed, it goes on; what is there is not sent again."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.processes import environment, run, started, vlmdata
from tests.integration.seaweed import BUCKET, S3
from tests.unit.export.conftest import checked_shard, originals
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import ExportConfig
from vlmdata.errors import BuildIncomplete, UserError
from vlmdata.export.finish import finish_export
from vlmdata.export.formats import FORMATS
from vlmdata.export.plan import plan_export
from vlmdata.export.shards import export_shard
from vlmdata.export.verify import verify
from vlmdata.store import S3Store, open_store

pytestmark = pytest.mark.integration

SETTINGS: dict[str, Any] = {"samples_per_shard": 4, "formats": tuple(FORMATS)}

COPY = """
import sys
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import ExportConfig
from vlmdata.export.finish import finish_export
from vlmdata.export.formats import FORMATS
from vlmdata.store import S3Store

url, name, out, when, *finals = sys.argv[1:]
left, replace = int(when), S3Store.replace

def counted(store, path, data, **more):
    global left
    left -= store.url == out
    if left == -1:
        print("half way", flush=True)
    replace(store, path, data, **more)

S3Store.replace = counted
shards = [Shard(str(number), 0, {"04_final": path}) for number, path in enumerate(finals)]
finish_export(Dataset(url, name), shards, ExportConfig(samples_per_shard=4, formats=tuple(FORMATS), path=out), {})
"""


def exported(store: str) -> tuple[Dataset, list[Shard]]:
    """Three shards in every format."""
    dataset, config = Dataset(store, "stamps"), ExportConfig(**SETTINGS)
    planned = plan_export(dataset, [checked_shard(dataset, "00000", originals(10))], config)
    return dataset, [export_shard(dataset, shard, config) for shard in planned]


def content(store: Any, folder: str) -> dict[str, bytes]:
    """Every object below a folder of a store."""
    prefix = f"{folder}/" if folder else ""
    return {path.removeprefix(prefix): store.get(path) for path in store.list(folder)}


@pytest.mark.parametrize(("store", "when"), [("folder", 0), ("bucket", 3), ("folder", 20)])
def test_killed_on_its_way_to_a_bucket_it_goes_on(
    s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: str, when: int
) -> None:
    dataset, done = exported(str(tmp_path / "store") if store == "folder" else f"s3://{BUCKET}/{uuid4().hex}")
    out = f"s3://{BUCKET}/{uuid4().hex}/copy"
    finals = [shard.manifests["04_final"] for shard in done]
    command = [sys.executable, "-c", COPY, dataset.store_url, dataset.name, out, str(when), *finals]
    read, write = os.pipe()
    with started(command, environment(**s3.environment), write, None) as copying, os.fdopen(read) as said:
        os.close(write)
        assert said.readline() == "half way\n"
        copying.send_signal(signal.SIGKILL)
        copying.wait()
    target = open_store(out)
    left = set(target.list(""))
    assert ("MANIFEST.json" in left) == (when > 0)
    if when:
        assert json.loads(target.get("MANIFEST.json"))["complete"] is False
        with pytest.raises(BuildIncomplete, match="interrupted"):
            verify(out)

    sent, fetched = watched(monkeypatch, out)
    config = ExportConfig(**SETTINGS, path=out)
    assert finish_export(dataset, done, config, {}) == out
    assert left & {*sent} <= {"MANIFEST.json", "README.md", "croissant.json"}, "what was there is not sent again"
    assert not left & {*fetched} - {"MANIFEST.json"}, "nor fetched: the store tells its digest"
    place = finish_export(dataset, done, ExportConfig(**SETTINGS), {})
    assert content(target, "") == content(dataset.store, place)
    sent.clear()
    fetched.clear()
    finish_export(dataset, done, config, {})
    assert (sent, {*fetched}) == ([], {"MANIFEST.json"})


def watched(monkeypatch: pytest.MonkeyPatch, url: str) -> tuple[list[str], list[str]]:
    """Paths at that address that are written, and those that are read, from now on."""
    sent: list[str] = []
    fetched: list[str] = []
    for name, paths in (("replace", sent), ("get", fetched), ("held", fetched)):
        monkeypatch.setattr(S3Store, name, _noting(getattr(S3Store, name), paths, url))
    return sent, fetched


def _noting(method: Any, paths: list[str], url: str) -> Any:
    def noted(store: S3Store, path: str, *rest: Any, **more: Any) -> Any:
        if store.url == url and path not in paths:
            paths.append(path)
        return method(store, path, *rest, **more)

    return noted


def test_an_export_in_a_bucket_is_proven_from_its_address_alone(s3: S3, tmp_path: Path) -> None:
    dataset, config = Dataset(str(tmp_path / "store"), "stamps"), ExportConfig(**SETTINGS)
    out = f"s3://{BUCKET}/{uuid4().hex}"
    planned = plan_export(dataset, [checked_shard(dataset, "00000", originals(6))], config)
    done = [export_shard(dataset, shard, config) for shard in planned]
    finish_export(dataset, done, ExportConfig(**SETTINGS, path=out), {})
    assert verify(out).holds
    store = open_store(out)
    store.replace("webdataset/00000.tar", store.get("webdataset/00000.tar")[:-1] + b"x")
    store.delete(next(path for path in store.list("llava") if "/images/00001/" in path))
    ended = run(vlmdata("verify", out, "--json"), environment(**s3.environment))
    told = json.loads(ended.stdout)
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1
    assert sorted(one["what"] for one in told["wrong"]) == ["holds other bytes than were written", "is gone"]
    with pytest.raises(UserError, match=r"holds no MANIFEST\.json"):
        verify(f"s3://{BUCKET}/nothing-here")


def test_a_copy_that_somebody_wrote_over_is_mended(s3: S3, tmp_path: Path) -> None:
    """The digest goes with the object: of another writer's object nobody knows one, and it is read."""
    dataset, config = Dataset(str(tmp_path / "store"), "stamps"), ExportConfig(**SETTINGS)
    out = f"s3://{BUCKET}/{uuid4().hex}"
    planned = plan_export(dataset, [checked_shard(dataset, "00000", originals(6))], config)
    done = [export_shard(dataset, shard, config) for shard in planned]
    to_bucket = ExportConfig(**SETTINGS, path=out)
    finish_export(dataset, done, to_bucket, {})
    store = open_store(out)
    whole = content(store, "")
    assert store.digest("mds/00000.mds") and store.digest("README.md") is None
    store.put("mds/00000.mds", b"somebody else's")
    store.put("MANIFEST.json", json.dumps({**json.loads(whole["MANIFEST.json"]), "complete": False}).encode())
    finish_export(dataset, done, to_bucket, {})
    assert content(store, "") == whole
