"""Asking on, or not: after a 429, where nobody answers yet or ever, at a wrong address, and when the money ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
import yaml

from tests.integration.captioning import HASTY, PRICE, USED, config, make_shard, outcomes
from tests.integration.prefect_server import PrefectServer
from tests.integration.test_exit_codes import build, write_set
from tests.servers.faults import FaultServer, caption, fault_server
from vlmdata.captioning import line as lines
from vlmdata.captioning.backoff import Backoff
from vlmdata.captioning.endings import Waits
from vlmdata.captioning.endpoint import endpoint_of
from vlmdata.captioning.journal.records import NANO, Ask, decode
from vlmdata.captioning.money import price_of, worst_case
from vlmdata.captioning.questions import Asker
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Dataset
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError, UserError
from vlmdata.event_loop import run
from vlmdata.layout import Step, journal

pytestmark = pytest.mark.integration


@pytest.fixture
def faults() -> Iterator[FaultServer]:
    with fault_server() as running:
        yield running


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "store"), "faults")


def at_once(settings: CaptionConfig) -> int:
    """How many may be asked about at once, now, by whoever asks with these settings."""

    async def look() -> int:
        return lines.process().line(endpoint_of(settings, 1).base_url, settings).pace.limit

    return run(look())


def test_a_429_halves_what_is_asked_at_once_and_answers_bring_it_back(faults: FaultServer, dataset: Dataset) -> None:
    faults.scripts = {0: ["429"]}
    # A number of its own: an address may be had again in one process, and what is known of it with it.
    settings = config(faults, concurrency=12)
    assert at_once(settings) == 12
    slowed = caption_shard(dataset, make_shard(dataset, range(1)), settings, HASTY)
    assert outcomes(dataset, slowed) == {0: ("captioned", None, 2)}
    assert at_once(settings) == 6, "and one answer alone does not bring it back"

    # One more for as many answers as may be asked at once: 6 + 7 + … + 11 bring back all, and others no more than all.
    caption_shard(dataset, make_shard(dataset, range(1, 81)), settings, HASTY)
    assert at_once(settings) == 12


@dataclass(frozen=True)
class Told(Backoff):
    """Waits as long each time, and tells how many tries came before."""

    tried: list[int] = field(default_factory=list)
    then: Callable[[int], None] = lambda tried: None

    def pause(self, tried: int, retry_after: float | None = None) -> float:
        self.tried.append(tried)
        self.then(tried)
        return 0.01


@contextmanager
def not_there_yet() -> Iterator[tuple[FaultServer, Callable[[], None]]]:
    """A server whose address refuses connections, and what lets it in."""
    faults = FaultServer()
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        faults.base_url = f"http://127.0.0.1:{door.getsockname()[1]}/v1"
        server = uvicorn.Server(uvicorn.Config(faults, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)

        def let_in() -> None:
            # From here on the kernel takes connections, which wait for the server if they have to.
            door.listen()
            thread.start()

        try:
            yield faults, let_in
        finally:
            server.should_exit = True
            if thread.is_alive():
                thread.join()


def tries(dataset: Dataset) -> list[int]:
    """The numbers of all requests that were written down before they were sent, in order."""
    segments = [path for path in dataset.store.list(journal(dataset.name)) if path.endswith(".jsonl")]
    records = [record for path in segments for record in decode(dataset.store.get(path), path)]
    return [record.request for record in records if isinstance(record, Ask)]


def test_a_server_that_comes_up_between_two_tries_is_found(dataset: Dataset) -> None:
    with not_there_yet() as (faults, let_in):
        backoff = Told(then=lambda tried: let_in() if tried == 2 else None)
        settings = config(faults, concurrency=13)
        shard = caption_shard(dataset, make_shard(dataset, range(1)), settings, Waits(backoff))
    assert dataset.read(shard, Step.CAPTIONED, "captions")["text"].to_pylist() == [caption(0)]
    assert backoff.tried == [1, 2] and faults.requests == {0: 1}
    assert outcomes(dataset, shard) == {0: ("captioned", None, 1)}, "what nobody heard does not count"


@pytest.mark.parametrize("retries", range(4))
def test_an_address_where_nobody_ever_answers_is_tried_as_often_as_any(dataset: Dataset, retries: int) -> None:
    backoff = Told()
    with not_there_yet() as (faults, _):
        settings = config(faults, concurrency=14 + retries, max_retries=retries)
        with pytest.raises(UserError, match="is the server running"):
            caption_shard(dataset, make_shard(dataset, range(1)), settings, Waits(backoff))
    assert backoff.tried == list(range(1, retries + 1)), "a pause between two tries, and none after the last"
    assert tries(dataset) == [1] * (1 + retries), "a number that nobody heard is given again"


def test_a_404_is_asked_once(faults: FaultServer, dataset: Dataset) -> None:
    """Of one picture, at an address that is right for the others."""
    faults.scripts = {1: ["404"]}
    before = make_shard(dataset, range(3))
    shard = caption_shard(dataset, before, config(faults), HASTY)
    assert outcomes(dataset, shard)[1] == ("failed", "permanent", 1)
    manifest = dataset.manifest(shard, Step.CAPTIONED)
    assert manifest.open == 0 and manifest.reasons == {"caption_permanent": 1}
    assert caption_shard(dataset, before, config(faults), HASTY) == shard
    assert faults.requests == {0: 1, 1: 1, 2: 1}


def test_at_a_wrong_path_each_picture_is_asked_about_once(faults: FaultServer, dataset: Dataset) -> None:
    before = make_shard(dataset, range(3))
    with pytest.raises(ConfigError, match="404"):
        caption_shard(dataset, before, config(faults, base_url=f"{faults.base_url}/nowhere"), HASTY)
    assert faults.requests == {0: 1, 1: 1, 2: 1}
    shard = caption_shard(dataset, before, config(faults), HASTY)
    assert dataset.manifest(shard, Step.CAPTIONED).samples.kept == 3, "the right one finds nothing in its way"
    assert faults.requests == {0: 2, 1: 2, 2: 2}


def test_a_build_that_spent_all_its_money_is_4(server: PrefectServer, faults: FaultServer, tmp_path: Path) -> None:
    file = write_set(tmp_path, 6, 10, "none")
    asking = config(faults, prices={"m": PRICE})
    worst = worst_case(Asker.of(asking).question(small=True), price_of(asking)) / NANO
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    settings["caption"] = {"base_url": faults.base_url, "model": "m", "prices": {"m": PRICE}}
    # What a request can cost is set aside before it is sent, and what it did not cost is there for the next.
    settings["caption"]["max_cost"] = worst + 2.5 * USED
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    short = build(file, "--to", "02_captioned")
    assert short.returncode == 4, short.stderr
    assert faults.requests.total() == 3, "the fourth could have passed the limit"
    assert "caption_budget" in short.stdout and "Traceback" not in short.stderr
