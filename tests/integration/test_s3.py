"""The store on a real S3 server: the same bytes as in a folder, and one clear line when it cannot be used."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.conftest import Built
from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, free_port, run, vlmdata
from tests.integration.sample import build_here, config_of, export_of, write_config
from tests.integration.seaweed import BUCKET, S3
from vlmdata.store import open_store

pytestmark = pytest.mark.integration

WRITERS = 8


def test_the_build_gives_the_bytes_that_it_gives_in_a_folder(
    undisturbed: Built, server: PrefectServer, s3: S3, sample: Path
) -> None:
    config = config_of(sample, f"s3://{BUCKET}/whole")
    told = build_here(config, server.api)
    assert export_of(config) == undisturbed.files
    assert told["stages"] == undisturbed.told["stages"]


def test_of_many_writers_one_wins(s3: S3) -> None:
    store = open_store(f"s3://{BUCKET}/race")
    at_once = threading.Barrier(WRITERS)

    def write(name: str, writer: int) -> bool:
        at_once.wait()
        return store.create(name, f"writer {writer}".encode())

    for number in range(5):
        name = f"runs/{number}.json"
        with ThreadPoolExecutor(WRITERS) as pool:
            won = list(pool.map(write, [name] * WRITERS, range(WRITERS)))
        assert sum(won) == 1
        assert store.get(name) == f"writer {won.index(True)}".encode()


def test_a_taken_name_is_left_as_it_is(s3: S3) -> None:
    store = open_store(f"s3://{BUCKET}/taken")
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.get("a/b") == b"first"
    assert store.exists("a/b") and not store.exists("a")
    assert store.list("a") == ["a/b"] and store.children("") == ["a"]
    with pytest.raises(FileNotFoundError):
        store.get("a/c")


@pytest.mark.parametrize(
    ("store", "wrong", "told"),
    [
        ("s3://no-such-bucket/x", {}, "no bucket 'no-such-bucket'"),
        (f"s3://{BUCKET}/x", {"AWS_SECRET_ACCESS_KEY": "not-the-secret"}, "refuses these credentials"),
        (f"s3://{BUCKET}/x", {"AWS_ACCESS_KEY_ID": "not-the-key"}, "refuses these credentials"),
        (f"s3://{BUCKET}/x", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials"),
        (f"s3://{BUCKET}/x", {"AWS_ENDPOINT_URL": "nobody listens"}, "AWS_ENDPOINT_URL"),
        ("s3://", {}, "s3://bucket/prefix"),
    ],
    ids=["no-bucket", "wrong-secret", "wrong-key", "no-key", "no-server", "no-name"],
)
def test_a_store_that_cannot_be_used_is_one_line(
    store: str, wrong: dict[str, str], told: str, s3: S3, sample: Path, tmp_path: Path
) -> None:
    if "AWS_ENDPOINT_URL" in wrong:
        wrong = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    alone = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    env = {name: value for name, value in environment(**{**s3.environment, **alone, **wrong}).items() if value}
    file = write_config(tmp_path / "config.yaml", config_of(sample, store))
    done = run(vlmdata("build", str(file)), env)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("vlmdata: ") and store in line and told in line
    assert s3.secret not in line
