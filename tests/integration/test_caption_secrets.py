"""A key is where it was put and nowhere else, whatever a server does with it.

Searched are all objects of the store, what is logged and raised, and all that Prefect keeps.
"""

from __future__ import annotations

import io
import json
import logging
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.integration.captioning import make_shard, open_attempts
from tests.integration.prefect_server import PrefectServer
from tests.integration.sample import config_of
from tests.servers.batches import batch_server
from tests.servers.faults import fault_server
from vlmdata.captioning.backoff import Backoff
from vlmdata.captioning.endings import Waits
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.serving import running
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Dataset
from vlmdata.config import CaptionConfig
from vlmdata.config_reading import parse_config
from vlmdata.errors import VlmdataError
from vlmdata.layout import Stage, Step
from vlmdata.store import Store

pytestmark = pytest.mark.integration

# One that looks like a key, and one that does not.
KEYS = ["sk-test-Hf8sQw2Lk9Zp4Xv7", "Zq7vN3xK9mR2tB5wL8pD4c"]
SHORTEST_PART = 8
"""Characters of a key that tell something about it."""
LONGEST_MESSAGE = 300


class Parrot:
    """A caption server of both dialects that says the key wherever it can."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.heard: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        self.heard.add(key)
        status, reply = self._reply(key, len(self.said))
        self.said.append(reply)
        start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        await send(start)
        await send({"type": "http.response.body", "body": reply.encode()})

    def _reply(self, key: str, turn: int) -> tuple[int, str]:
        # The message is cut to its length in the middle of the key.
        straddling = "x" * (LONGEST_MESSAGE - 1 - len(key) // 2 - 1) + f" {key} is wrong"
        text = f"A red bus with the words {key} stands in front of a house."
        spaced = f"no such key:\n\n\t{key}\n"
        replies: list[tuple[int, Any]] = [
            (400, {"error": {"message": f"cannot use {key}"}}),
            (422, {"error": {"message": straddling}}),
            (400, {"error": {"type": key, "message": spaced, "code": key}}),
            (500, {"error": {"message": f"{key}{key}"}}),
            (200, {"error": {"message": f"upstream does not like {key}", "type": key}, "type": "error"}),
            (200, _message(text)),
            (200, _message(f"I'm sorry, but I cannot describe {key}.")),
            (200, _message("", refusal=f"I will not read {key}")),
            (429, {"error": f"Bearer {key} is too fast"}),
            (404, f"<html>{key}</html>"),
            (400, escaped({"error": {"message": f"cannot use {key}"}}, key)),
            (200, escaped(_message(text), key)),
        ]
        status, reply = replies[turn % len(replies)]
        return status, reply if isinstance(reply, str) else json.dumps(reply)


def escaped(reply: dict[str, Any], key: str) -> str:
    """As JSON may be written, so that the bytes do not hold the key and the text does."""
    return json.dumps(reply).replace(key, "".join(f"\\u{ord(letter):04x}" for letter in key))


def _message(text: str, refusal: str | None = None) -> dict[str, Any]:
    """An answer in both dialects at once."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "content": [{"type": "text", "text": text}],
        "stop_reason": "refusal" if refusal else "end_turn",
        "stop_details": {"explanation": refusal},
        "usage": {"prompt_tokens": 9, "completion_tokens": 9, "input_tokens": 9, "output_tokens": 9},
    }


@contextmanager
def parrot() -> Iterator[tuple[Parrot, str]]:
    app = Parrot()
    with running(app) as address:
        yield app, f"{address}/v1"


def parts_of(key: str) -> list[bytes]:
    """The key as it may be written, and each part of it that is long enough to tell."""
    parts = {key[start : start + SHORTEST_PART] for start in range(len(key) - SHORTEST_PART + 1)}
    # What everybody's key begins with tells nothing.
    parts.discard("sk-test-")
    return [part.encode() for part in {*parts, b64encode(key.encode()).decode(), key[::-1]}]


def found_in(data: bytes, key: str) -> list[bytes]:
    return [part for part in parts_of(key) if part in data]


def leaks(store: Store, key: str) -> dict[str, list[bytes]]:
    """Objects that say the key, or part of it, in their name, bytes or rows."""
    held = {path: found_in(path.encode() + _told(store, path), key) for path in store.list("")}
    return {path: parts for path, parts in held.items() if parts}


def _told(store: Store, path: str) -> bytes:
    data = store.get(path)
    if not path.endswith(".parquet"):
        return data
    table = pq.read_table(io.BytesIO(data))
    rows = [column for column in table.column_names if column != "image"]
    return data + "\n".join(str(row) for row in table.select(rows).to_pylist()).encode()


def asked(caplog: pytest.LogCaptureFixture, dataset: Dataset, config: CaptionConfig, pictures: int) -> str:
    """Everything that a run and a retry say."""
    said = []
    before = make_shard(dataset, range(pictures))
    for _ in range(3):
        try:
            shard = caption_shard(dataset, before, config, Waits(Backoff(0.002, 0.01), poll_s=0.01))
            said.append(str(dataset.read(shard, Step.CAPTIONED, "attempts").to_pylist()))
            open_attempts(dataset, shard)
        except VlmdataError as error:
            said.append(f"{error} {error!r} {error.__cause__!r}")
    return "\n".join([*said, caplog.text])


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "store"), "secret")


def compacted(dataset: Dataset) -> None:
    """The journal's tables and snapshots, too."""
    Log(dataset.store, dataset.name).compact()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_server_that_says_the_key_everywhere(
    provider: str, key: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    caplog.set_level(logging.DEBUG)
    with parrot() as (app, base_url):
        config = CaptionConfig.model_validate(
            {"provider": provider, "base_url": base_url, "model": "m", "api_key_env": "MY_KEY", "concurrency": 1}
        )
        said = asked(caplog, dataset, config, 12)
    assert app.heard == {key} and len(app.said) > 20
    compacted(dataset)
    assert any(path.endswith(".jsonl") for path in dataset.store.list(""))
    assert any("/journal/tables/" in path for path in dataset.store.list(""))
    assert "***" in said and not found_in(said.encode(), key)
    assert leaks(dataset.store, key) == {}


@pytest.mark.parametrize("status", ["401", "403"])
@pytest.mark.parametrize("key", KEYS)
def test_a_refused_key_is_named_by_its_variable(
    status: str, key: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    caplog.set_level(logging.DEBUG)
    with fault_server() as server:
        server.scripts = {number: ["echo_key", status, status] for number in range(4)}
        config = CaptionConfig.model_validate({"base_url": server.base_url, "model": "m", "api_key_env": "MY_KEY"})
        said = asked(caplog, dataset, config, 4)
    assert "MY_KEY" in said and not found_in(said.encode(), key)
    assert leaks(dataset.store, key) == {}


@pytest.mark.parametrize("step", ["upload", "create", "list", "poll", "download"])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_batch_api_that_says_the_key(
    provider: str, step: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each step is refused with the key in the refusal, then goes well."""
    key = KEYS[1]
    monkeypatch.setenv("MY_KEY", key)
    caplog.set_level(logging.DEBUG)
    with batch_server() as server:
        server.faults = {step: ["500", "400", "401", "500", "400"]}
        config = CaptionConfig.model_validate(
            {"provider": provider, "base_url": server.base_url, "model": "m", "api_key_env": "MY_KEY", "batch": True}
        )
        said = asked(caplog, dataset, config, 3)
    assert any(key in value for headers in server.headers for value in headers.values())
    assert not found_in(said.encode(), key)
    assert leaks(dataset.store, key) == {}


def test_an_error_and_its_traceback_do_not_show_the_client(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a debugger or a log of locals prints is a repr."""
    from vlmdata.captioning.endpoint import endpoint_of

    monkeypatch.setenv("MY_KEY", KEYS[1])
    config = CaptionConfig(base_url="http://127.0.0.1:9/v1", model="m", api_key_env="MY_KEY")
    assert not found_in(repr(endpoint_of(config, 1)).encode(), KEYS[1])
    assert not found_in(config.model_dump_json().encode(), KEYS[1])


def test_neither_prefect_nor_the_store_hears_of_the_key(
    server: PrefectServer, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters, artifacts, logs, results and events of a build whose captioner says the key."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.build_dataset import build_dataset

    key = KEYS[1]
    monkeypatch.setenv("MY_KEY", key)
    with parrot() as (app, base_url):
        caption = {"policy": "all", "base_url": base_url, "model": "m", "api_key_env": "MY_KEY", "concurrency": 1}
        config = parse_config(config_of(sample, str(tmp_path / "store"), caption=caption))
        with temporary_settings({PREFECT_API_URL: server.api}):
            state: Any = build_dataset(config, to=Stage.CAPTIONED, return_state=True)
    told = state.result()
    assert state.is_completed() and app.heard == {key}
    kept = {str(file): file.read_bytes() for file in server.home.rglob("*") if file.is_file()}
    assert any(b"sample-funnel" in data for data in kept.values())
    assert not [name for name, data in kept.items() if found_in(data, key)]
    assert not found_in(json.dumps(told, default=str).encode(), key)
    assert leaks(Dataset(str(tmp_path / "store"), "sample").store, key) == {}
