"""Nights on a bucket that grows: each adds what came, what was published stays, and two at once do not collide."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, kill_group, run, started, vlmdata, wait_until
from tests.integration.sample import config_of, write_config
from tests.integration.seaweed import BUCKET, S3
from vlmdata.store import Store, open_store

pytestmark = pytest.mark.integration


@dataclass
class Bucket:
    """A prefix that pictures come into, the dataset that is made of it, and its nights."""

    source: Store
    store: str
    config: Path
    env: dict[str, str]
    pictures: dict[str, bytes]
    said: dict[str, str] = field(default_factory=dict)

    def add(self, *names: str, under: dict[str, bytes] | None = None) -> None:
        """Pictures of the sample, or others under their names, with a caption each."""
        for name in names:
            self.source.replace(f"pictures/{name}", (under or self.pictures)[name])
            self.said.setdefault(name, f"A stamp of {Path(name).stem.replace('_', ' ')}.")
        rows = [json.dumps({"file": name, "captions": [said]}) for name, said in sorted(self.said.items())]
        self.source.replace("captions.jsonl", "\n".join(rows).encode())

    def night(self) -> Any:
        """`vlmdata nightly`, as cron runs it."""
        return run(vlmdata("nightly", str(self.config)), self.env)

    def ask(self, *command: str) -> Any:
        """A command about the dataset, as JSON lines."""
        done = run(vlmdata(*command, "--store", self.store, "--dataset", "sample", "--json"), self.env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def read_shards(self) -> set[str]:
        """Shards that pictures were read for, by name; a name twice would be two manifests."""
        store = open_store(self.store)
        names = [json.loads(store.get(path))["shard"] for path in store.list("sample/00_raw/manifests")]
        assert len(names) == len(set(names)), names
        return set(names)

    def exports(self) -> list[dict[str, Any]]:
        """The manifests of its exports, in the order of the versions."""
        store = open_store(self.store)
        versions = [json.loads(store.get(path)) for path in store.list("sample/versions")]
        return [json.loads(store.get(f"{version['export']}/MANIFEST.json")) for version in versions]

    def versions(self) -> list[dict[str, Any]]:
        """What `vlmdata versions` lists."""
        return [json.loads(line) for line in self.ask("versions").splitlines()]


@pytest.fixture
def bucket(
    request: pytest.FixtureRequest, s3: S3, server: PrefectServer, sample: Path, tmp_path: Path
) -> Iterator[Bucket]:
    url = f"s3://{BUCKET}/{request.node.name}"
    config = config_of(sample, f"{url}/store")
    config["source"] = {"kind": "folder", "path": f"{url}/drop/pictures", "captions": f"{url}/drop/captions.jsonl"}
    config["export"] = {**config.get("export", {}), "increments": True}  # as the deployment has it
    file = write_config(tmp_path / "config.yaml", config)
    root = sample / "pictures"
    good = [path for path in sorted(root.rglob("*")) if path.is_file() and path.parent != root]
    pictures = {str(path.relative_to(root)): path.read_bytes() for path in good}
    env = environment(**s3.environment, **server.environment)
    yield Bucket(open_store(f"{url}/drop"), f"{url}/store", file, env, pictures)


def smaller(data: bytes) -> bytes:
    """A near-duplicate."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        upright = image.convert("RGB")
        upright.resize((upright.width * 9 // 10, upright.height * 9 // 10)).save(out, "PNG")
    return out.getvalue()


def of_one_size(data: bytes, *, mirrored: bool) -> bytes:
    """A picture of which nothing but the content tells whether it is mirrored: neither name nor size does."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        made = image.convert("RGB").resize((300, 300))
    (ImageOps.mirror(made) if mirrored else made).save(out, "PNG", compress_level=0)
    return out.getvalue()


def test_night_after_night(bucket: Bucket) -> None:
    names = list(bucket.pictures)
    one_size = [of_one_size(bucket.pictures[names[18]], mirrored=mirrored) for mirrored in (False, True)]
    assert len(one_size[0]) == len(one_size[1])
    bucket.add(*names[:11])
    bucket.add("of_one_size.png", under={"of_one_size.png": one_size[0]})
    first = bucket.night()
    assert first.returncode == 0, first.stderr

    again = bucket.night()
    assert again.returncode == 0 and "nothing has changed" in again.stdout
    assert [row["version"] for row in bucket.versions()] == [1]

    before = bucket.read_shards()
    copy = {"a_copy.png": smaller(bucket.pictures[names[0]])}
    bucket.add(*names[11:17])
    bucket.add("a_copy.png", under=copy)
    second = bucket.night()
    assert second.returncode == 0, second.stderr
    assert bucket.read_shards() - before == {"00002"}, "what was there was not read again"

    one, two = bucket.versions()
    assert two["samples"] - one["samples"] == 6
    assert [two[name] for name in ("parent", "added", "removed", "changed")] == [1, 6, 0, 0]
    first_export, second_export = bucket.exports()
    assert second_export["earlier"] == [{**file, "export": first_export["export"]} for file in first_export["files"]], (
        "what the version before has is not written again"
    )
    assert {(file["format"], file["samples"]) for file in second_export["files"]} == {("webdataset", 6), ("parquet", 6)}
    story = json.loads(bucket.ask("explain", "a_copy.png"))
    assert "near_duplicate" in json.dumps(story)
    told = json.loads(bucket.ask("diff", "1", "2"))
    assert (told["added"], told["samples"]) == (6, [one["samples"], two["samples"]])

    bucket.add(names[0], under={names[0]: smaller(bucket.pictures[names[0]])})
    bucket.add("of_one_size.png", under={"of_one_size.png": one_size[1]})
    bucket.source.delete(f"pictures/{names[1]}")
    del bucket.said[names[1]]
    bucket.add()
    third = bucket.night()
    assert third.returncode == 0, third.stderr
    newest = bucket.versions()[-1]
    assert (newest["removed"], newest["version"]) == (1, 3)
    assert (newest["changed"], newest["added"]) == (2, 0), "what was replaced is no duplicate of its old self"


def test_two_nights_at_once(bucket: Bucket) -> None:
    bucket.add(*list(bucket.pictures)[:12])
    store = open_store(bucket.store)
    with started(vlmdata("nightly", str(bucket.config)), bucket.env) as first:
        wait_until(lambda: store.exists("sample/lease.json"), "the first night holds the dataset", pause_s=0.05)
        second = bucket.night()
        assert first.poll() is None, "the first one was still at it"
        assert second.returncode == 4
        assert "has been at it since" in second.stderr and len(second.stderr.strip().splitlines()) == 1
        assert first.wait(300) == 0
    assert [row["version"] for row in bucket.versions()] == [1]


def test_without_the_courtesy_one_publishes_and_the_other_learns_by_whom(bucket: Bucket) -> None:
    """A night is stopped in its middle, its lease is lost, and another one, which sees more, is faster."""
    names = list(bucket.pictures)
    bucket.add(*names[:8])
    store = open_store(bucket.store)
    with started(vlmdata("nightly", str(bucket.config)), bucket.env, stderr=subprocess.PIPE) as slow:
        wait_until(lambda: store.exists("sample/runs/000001/start.json"), "it has begun", pause_s=0.05)
        os.killpg(slow.pid, signal.SIGSTOP)
        store.delete("sample/lease.json")
        bucket.add(*names[8:12])
        quick = bucket.night()
        os.killpg(slow.pid, signal.SIGCONT)
        _, said = slow.communicate(timeout=300)
    assert (quick.returncode, slow.returncode) == (0, 4), quick.stderr
    # Prefect may have something to say of the pause.
    [line] = [line for line in said.decode().splitlines() if line.startswith("vlmdata: ")]
    assert re.search(r"version 1: run 2 on \S+, process \d+, begun at .* while this run, 1, .* run it again", line)
    again = bucket.night()
    assert again.returncode == 0, again.stderr
    assert [(row["version"], row["run"], row["samples"]) for row in bucket.versions()] == [(1, 2, 12)]


def test_a_killed_night_is_made_up_for_by_the_next(bucket: Bucket) -> None:
    names = list(bucket.pictures)
    bucket.add(*names[:12])
    store = open_store(bucket.store)
    with started(vlmdata("nightly", str(bucket.config)), bucket.env) as night:
        wait_until(lambda: bool(store.list("sample/01_filtered/facts/manifests")), "it decodes", pause_s=0.05)
        kill_group(night)
    held = bucket.night()
    assert held.returncode == 4 and "if it was killed, until" in held.stderr
    store.delete("sample/lease.json")
    bucket.add(*names[12:16])
    with started(vlmdata("nightly", str(bucket.config)), bucket.env) as night:
        wait_until(lambda: store.exists("sample/versions/000001.json"), "it has published", pause_s=0.02)
        kill_group(night)
    published = store.get("sample/versions/000001.json")
    store.delete("sample/lease.json")
    after = bucket.night()
    assert after.returncode == 0, after.stderr
    assert [(row["version"], row["samples"]) for row in bucket.versions()] == [(1, 16)]
    assert store.get("sample/versions/000001.json") == published
