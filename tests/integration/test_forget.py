"""`vlmdata forget` on a real build with captions from an endpoint: nothing is left, asked twice, or comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, run, vlmdata
from tests.integration.sample import config_of, write_config
from tests.integration.seaweed import BUCKET, S3
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
