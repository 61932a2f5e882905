"""The store on a real S3 server: the same bytes as in a folder, and one clear line when it cannot be used."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.integration.conftest import Built
from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, free_port, run, vlmdata
from tests.integration.sample import build_here, config_of, export_of, write_config
from tests.integration.seaweed import BUCKET, S3
from tests.servers.careless_s3 import CarelessS3, careless_s3
from vlmdata.store import CHECK, S3Store, open_store

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


def test_a_name_can_be_replaced_and_deleted(s3: S3) -> None:
    store = open_store(f"s3://{BUCKET}/changing")
    store.replace("a", b"first")
    store.replace("a", b"second")
    assert store.get("a") == b"second" and abs(store.written("a") - time.time()) < 60
    for _ in range(2):
        store.delete("a")
    assert not store.exists("a")
    with pytest.raises(FileNotFoundError):
        store.written("a")


def test_a_link_is_read_without_keys(s3: S3) -> None:
    store = S3Store(f"s3://{BUCKET}/linked")
    store.put("a b/c.png", b"picture")
    link = store.link("a b/c.png", 60)
    assert s3.secret not in link
    with urlopen(link) as answer:
        assert answer.read() == b"picture"
    with pytest.raises(HTTPError):
        urlopen(link.partition("?")[0])


def test_a_check_is_done_for_real_and_hides_what_it_leaves(s3: S3) -> None:
    store = open_store(f"s3://{BUCKET}/checked")
    store.check(create=False)
    assert store.list("") == []
    for _ in range(2):
        store.check()
    assert (store.list(""), store.children("")) == ([CHECK], [])


@pytest.mark.parametrize(
    ("may_write", "told"),
    [(True, "the server overwrites where it is told not to (If-None-Match)"), (False, "may list it but not write")],
)
def test_a_server_on_which_a_run_would_come_to_harm_is_refused_in_one_line(
    may_write: bool, told: str, sample: Path, tmp_path: Path
) -> None:
    file = write_config(tmp_path / "config.yaml", config_of(sample, "s3://bucket/x"))
    with careless_s3(CarelessS3(may_write=may_write)) as endpoint:
        keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
        done = run(vlmdata("build", str(file)), environment(AWS_ENDPOINT_URL=endpoint, **keys))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("vlmdata: store = 's3://bucket/x': ") and told in line


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
