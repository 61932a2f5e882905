"""`plan`, `failures` and `retry`, budgets and held samples, as a person uses them: whole builds, a real captioner."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.integration.captioning import PRICE, USED
from tests.integration.prefect_server import PrefectServer, used_here
from tests.integration.processes import environment, kill_group, started, vlmdata, wait_until
from tests.integration.sample import STAMPS
from tests.servers.faults import (
    FaultServer,
    _body,
    _completion,
    _error,
    _reply,
    colour,
    fault_server,
    number_in,
)
from vlmdata import cli
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.pace import FRESH_S
from vlmdata.captioning.serving import running
from vlmdata.checkpoint import Dataset

pytestmark = pytest.mark.integration

KEY = "sk-test-0123456789abcdef"


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Said]


@pytest.fixture
def command(
    server: PrefectServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """The command line in this process, against the session's Prefect server."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["vlmdata", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = Said(int(ended.value.code or 0), *capsys.readouterr())
        assert KEY not in said.out + said.err
        return said

    with used_here(server.api):
        yield run


@pytest.fixture(scope="module")
def running_faults() -> Iterator[FaultServer]:
    with fault_server() as server:
        yield server


@pytest.fixture
def faults(running_faults: FaultServer) -> FaultServer:
    running_faults.reset()
    return running_faults


def write_set(folder: Path, base_url: str, pictures: int, captions: dict[int, str] | None = None, **ask: Any) -> Path:
    """A config over noise with a corner of one colour, by which the captioner knows a picture."""
    (folder / "pictures").mkdir()
    for number in range(pictures):
        noise = Image.frombytes("RGB", (8, 6), random.Random(number).randbytes(8 * 6 * 3)).resize((320, 240))
        noise.paste(colour(number), (0, 0, 48, 48))
        noise.save(folder / "pictures" / f"{number}.png")
    rows = [{"file": f"{number}.png", "caption": text} for number, text in (captions or {}).items()]
    rows += [{"file": f"{number}.png"} for number in range(pictures) if number not in (captions or {})]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return write_config(folder, base_url, **ask)


def write_config(folder: Path, base_url: str, accept: float = -1.0, reject: float = -1.0, **ask: Any) -> Path:
    """The config alone; `shard_size` 4."""
    config = {
        "dataset": "few",
        "store": "./store",
        "source": {"kind": "folder", "path": "./pictures", "captions": "./captions.jsonl"},
        "shard_size": 4,
        "caption": {"base_url": base_url, "model": "m", "concurrency": 4, "recaption_held": 0, **ask},
        "quality": {"model": "starter", "accept_above": accept, "reject_below": reject},
        "report": False,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def where(folder: Path) -> list[str]:
    return ["--store", str(folder / "store"), "--dataset", "few"]


def funnel(command: Command, folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(command("status", *where(folder), "--json").out)
    for stage in told["stages"].values():
        for tally in (stage, stage["captions"]):
            assert tally["in"] == tally["kept"] + tally["rejected"] + tally["held"] + tally["failed"]
    return told


def manifests(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("manifests/*/*.json")}


TO_CAPTIONS = ["--to", "02_captioned"]


def test_a_plan_asks_nothing_records_no_run_and_its_build_does_no_work_twice(
    command: Command, faults: FaultServer, tmp_path: Path
) -> None:
    config = write_set(tmp_path, faults.base_url, 6, {5: "one that has a caption"}, prices={"m": PRICE})
    plan = json.loads(command("plan", config, "--json").out)
    assert not faults.requests
    assert (plan["pictures"], plan["requests"], plan["answered"], plan["fits"]) == (5, 5, 0, True)
    assert 0 < plan["cost"] < plan["cost_at_worst"]
    assert command("status", *where(tmp_path)).code == 2, "nothing that looks like a run is left behind"
    before = manifests(tmp_path)

    done = command("build", config, *TO_CAPTIONS)
    assert (done.code, faults.requests.total()) == (0, plan["requests"])
    assert {path: time for path, time in manifests(tmp_path).items() if path in before} == before
    assert not [path for path in manifests(tmp_path).keys() - before.keys() if "/00_raw/" in path or "/01_" in path]

    again = json.loads(command("plan", config, "--json", "--set", "caption.recaption_held=1").out)
    assert (again["pictures"], again["answered"], again["requests"], again["paid_requests"]) == (5, 5, 0, 5)
    assert again["paid_cost"] == pytest.approx(5 * USED)
    assert "run 1" in command("status", *where(tmp_path)).out, "the build is still the newest run"
    spent = funnel(command, tmp_path)["stages"]["02_captioned"]["spent"]
    assert spent == {"requests": 5, "input_tokens": 450, "output_tokens": 35, "cost": pytest.approx(5 * USED)}
    assert "5 requests, 450 input and 35 output tokens, $0.0008" in done.out


def test_a_plan_in_words(command: Command, faults: FaultServer, tmp_path: Path) -> None:
    config = write_set(tmp_path, faults.base_url, 3)
    bare = command("plan", config)
    assert (bare.code, "$" in bare.out) == (0, False)
    assert "cost, about                          unknown" in bare.out and "caption.prices.m" in bare.out
    limited = command("plan", config, "--set", "caption.max_requests=2")
    assert (limited.code, "more than the limits allow" in limited.out) == (0, True)
    assert "0 of 2 (caption.max_requests)" in limited.out
    unpriced = command("plan", config, "--set", "caption.max_cost=2")
    assert (unpriced.code, unpriced.err.count("\n")) == (2, 1)
    assert "caption.prices has no price for 'm'" in unpriced.err
    nothing = json.loads(command("plan", config, "--json", "--set", "caption.policy=none").out)
    assert (nothing["pictures"], nothing["requests"], nothing["fits"]) == (0, 0, True)
    assert not faults.requests


def test_the_ledger_and_a_retry_of_one_class_then_of_all(command: Command, faults: FaultServer, tmp_path: Path) -> None:
    faults.scripts = {1: ["500"] * 4, 2: ["400"], 3: ["refusal"], 4: ["echo_key"]}
    config = write_set(tmp_path, faults.base_url, 6, {2: "a caption of its own"}, policy="all")
    begun = datetime.now(UTC)
    built = command("build", config, *TO_CAPTIONS)
    ended = datetime.now(UTC)
    assert (built.code, built.err.count("vlmdata:")) == (4, 1)
    assert "caption_transient" in built.out, "the funnel comes first"
    asked = {0: 1, 1: 4, 2: 1, 3: 1, 4: 1, 5: 1}
    assert faults.requests == asked

    ledger = command("failures", *where(tmp_path), "--json").rows
    found = sorted((row["stage"], row["class"], row["http_status"], row["attempts"]) for row in ledger)
    assert found == [
        ("02_captioned", "permanent", 400, 1),
        ("02_captioned", "permanent", 400, 1),
        ("02_captioned", "refused", 200, 1),
        ("02_captioned", "transient", 500, 4),
    ]
    # The store keeps milliseconds, and may have cut some off.
    begun = begun.replace(microsecond=begun.microsecond // 1000 * 1000)
    assert all(begun <= datetime.fromisoformat(row["time"]) <= ended for row in ledger)
    counts = funnel(command, tmp_path)["stages"]["02_captioned"]
    assert (counts["kept"], counts["failed"]) == (3, 3), "one has its original caption and is kept"
    assert (counts["captions"]["in"], counts["captions"]["failed"]) == (7, 4)
    of = {kind: command("failures", *where(tmp_path), "--class", kind, "--json").rows for kind in ("refused", "budget")}
    assert ([row["class"] for row in of["refused"]], of["budget"]) == (["refused"], [])
    assert not command("failures", *where(tmp_path), "--stage", "01_filtered", "--json").rows
    told = command("failures", *where(tmp_path)).out
    assert "4 failures: " in told and "cannot use Bearer ***" in told

    one = command("retry", *where(tmp_path), "--class", "refused", "--stage", "02_captioned")
    assert (one.code, "Trying 1 failure again." in one.out) == (4, True)
    assert faults.requests == {**asked, 3: 2}
    done = command("retry", *where(tmp_path))
    assert (done.code, "Trying 3 failures again." in done.out) == (0, True)
    assert faults.requests == {0: 1, 1: 5, 2: 2, 3: 2, 4: 2, 5: 1}
    assert funnel(command, tmp_path)["stages"]["02_captioned"]["captions"]["kept"] == 7
    story = json.loads(command("explain", "3.png", *where(tmp_path), "--json").out)
    [attempt] = story["stages"][2]["facts"]["asked"]
    assert attempt["prompt"].startswith("alt-text@") and (attempt["attempt"], attempt["sent_width"]) == (2, 320)
    assert attempt["sent_bytes"] == (tmp_path / "pictures" / "3.png").stat().st_size and attempt["sent_tokens"] > 0
    assert sent(attempt) == [(1, 1, "refused"), (2, 1, None)]
    story = json.loads(command("explain", "1.png", *where(tmp_path), "--json").out)
    [attempt] = story["stages"][2]["facts"]["asked"]
    assert sent(attempt) == [*((1, number, "transient") for number in (1, 2, 3, 4)), (2, 1, None)]
    assert attempt["prompt_name"] == "alt-text" and attempt["prompt_version"] == 1

    nothing = command("retry", *where(tmp_path))
    assert (nothing.code, nothing.out) == (0, "Nothing to retry: no failure of that kind in the newest run.\n")
    assert faults.requests.total() == 13


def sent(attempt: dict[str, Any]) -> list[tuple[int, int, str | None]]:
    return [(one["attempt"], one["request"], one.get("failure")) for one in attempt["requests_sent"]]


def test_what_failed_for_good_is_tried_again_though_the_build_was_complete(
    command: Command, faults: FaultServer, tmp_path: Path
) -> None:
    faults.scripts = {0: ["400"]}
    config = write_set(tmp_path, faults.base_url, 3)
    assert command("build", config).code == 0
    unchanged = command("build", config)
    assert "nothing was done" in unchanged.out and faults.requests == {0: 1, 1: 1, 2: 1}
    assert command("retry", *where(tmp_path), "--stage", "01_filtered").out.startswith("Nothing to retry")
    done = command("retry", *where(tmp_path))
    assert (done.code, faults.requests) == (0, {0: 2, 1: 1, 2: 1})
    assert funnel(command, tmp_path)["stages"]["04_final"]["kept"] == 3


def test_a_spent_budget_is_4_and_a_larger_one_goes_on(command: Command, faults: FaultServer, tmp_path: Path) -> None:
    config = write_set(tmp_path, faults.base_url, 6, max_requests=4)
    short = command("build", config, *TO_CAPTIONS)
    assert (short.code, faults.requests.total()) == (4, 4)
    assert "caption_budget" in short.out and "02_captioned" in short.out
    rows = command("failures", *where(tmp_path), "--class", "budget", "--json").rows
    assert len(rows) == 2 and all("caption.max_requests = 4" in row["message"] for row in rows)
    assert command("retry", *where(tmp_path)).code == 4, "the limit is the run's own"
    assert faults.requests.total() == 4

    other = command("retry", *where(tmp_path), "--set", "caption.model=other")
    assert (other.code, "would change what comes out" in other.err) == (2, True)
    done = command("retry", *where(tmp_path), "--set", "caption.max_requests=6")
    assert (done.code, faults.requests) == (0, dict.fromkeys(range(6), 1))


def test_a_retry_that_was_killed_is_gone_on_with(command: Command, faults: FaultServer, tmp_path: Path) -> None:
    faults.scripts = {number: ["400"] for number in range(8)}
    config = write_set(tmp_path, faults.base_url, 8, concurrency=2)
    assert command("build", config, *TO_CAPTIONS).code == 3, "nothing is left"
    faults.latency_s = 0.4
    with started(vlmdata("retry", *where(tmp_path)), environment(OPENAI_API_KEY=KEY)) as retry:
        wait_until(lambda: faults.requests.total() >= 8 + 4 or retry.poll() is not None, "some are asked again")
        kill_group(retry)
    faults.latency_s = 0.0
    assert set(faults.requests.values()) == {1, 2}
    # Prefect counts what the killed one had in flight for a minute more: there is room beside it.
    done = command("retry", *where(tmp_path), "--set", "caption.concurrency=4")
    assert done.code == 0, done.err
    repeated = faults.requests.total() - 16
    assert 0 <= repeated <= 2, "what was in flight"
    log = Log(Dataset(str(tmp_path / "store"), "few").store, "few")
    keys = [row["key"] for row in _attempts(tmp_path)]
    log.load(keys)
    assert [log.book.entries[key].attempt for key in keys] == [2] * 8, "one more, however often it was begun"


def _attempts(folder: Path) -> list[dict[str, Any]]:
    from vlmdata.layout import Stage, Step
    from vlmdata.runs import existing_run

    dataset = Dataset(str(folder / "store"), "few")
    report = existing_run(dataset).stage(Stage.CAPTIONED)
    assert report is not None
    return [row for shard in report.shards for row in dataset.read(shard, Step.CAPTIONED, "attempts").to_pylist()]


DULL = "A picture of one thing or another."
TALES = {
    1: ("animals/insects/cartoon/snail2.png", ["A happy cartoon snail."]),
    2: ("clothes/bluejeans1.webp", [DULL, "A pair of blue jeans with patches."]),
    3: ("clothes/hats/crown2.webp", [DULL, "A pair of blue jeans with patches."]),
    4: ("clothes/white_pants.jpg", [DULL, None]),
    5: ("food/fruit/cartoon/blueberry.png", [DULL, "Some ripe blueberries."]),
}
"""What each stamp is captioned with, first and then; None: 400."""


@dataclass
class Storyteller(FaultServer):
    """Says something else each time."""

    starts: list[float] = field(default_factory=list)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        request = json.loads(await _body(receive))
        number = number_in(request)
        texts = TALES[number][1]
        text = texts[min(self.requests[number], len(texts) - 1)]
        self.requests[number] += 1
        await _reply(send, *((200, _completion(text)) if text else (400, _error("not this one"))))


@pytest.fixture
def storyteller() -> Iterator[Storyteller]:
    server = Storyteller()
    with running(server) as address:
        server.base_url = f"{address}/v1"
        yield server


def write_stamps(folder: Path) -> None:
    (folder / "pictures").mkdir()
    for number, (file, _) in TALES.items():
        with Image.open(STAMPS / "pictures" / file) as image:
            flat = Image.new("RGBA", image.size, "white")
            flat.alpha_composite(image.convert("RGBA"))
        flat.paste(colour(number), (0, 0, 16, 16))
        flat.convert("RGB").save(folder / "pictures" / f"{number}.png")
    rows = [json.dumps({"file": f"{number}.png"}) for number in TALES]
    (folder / "captions.jsonl").write_text("\n".join(rows), encoding="utf-8")


def test_held_samples_come_back_once_and_the_better_caption_wins(
    command: Command, storyteller: Storyteller, tmp_path: Path
) -> None:
    write_stamps(tmp_path)
    bands: dict[str, Any] = {"accept": 0.14, "reject": -0.9}
    config = write_config(tmp_path, storyteller.base_url, **bands, recaption_held=0)
    assert command("build", config).code == 0
    counts = funnel(command, tmp_path)["stages"]
    assert (counts["03_quality_checked"]["kept"], counts["03_quality_checked"]["held"]) == (1, 4)
    assert storyteller.requests == dict.fromkeys(TALES, 1), "0: never"

    config = write_config(tmp_path, storyteller.base_url, **bands, recaption_held=1)
    done = command("build", config)
    assert done.code == 0, done.err
    assert storyteller.requests == {1: 1, 2: 2, 3: 2, 4: 2, 5: 2}
    assert "02 caption again" in done.err
    counts = funnel(command, tmp_path)["stages"]
    assert [counts["03_quality_checked"][name] for name in ("in", "kept", "held")] == [5, 3, 2]
    captions = counts["02_captioned"]["captions"]
    assert [captions[name] for name in ("in", "kept", "failed")] == [9, 8, 1]
    assert counts["03_quality_checked"]["captions"]["in"] == captions["kept"]
    assert counts["02_captioned"]["spent"]["requests"] == 9

    won, lost = (told(command, tmp_path, f"{number}.png") for number in (2, 3))
    assert [row.get("again") for row in won["02_captioned"]["asked"]] == [None, 1]
    assert len({row["prompt"] for row in won["02_captioned"]["asked"]}) == 1
    assert [row["text"] for row in won["03_quality_checked"]["scores"]] == TALES[2][1]
    assert [row["text"] for row in won["03_quality_checked"]["captions"]] == [TALES[2][1][1]]
    assert [row["code"] for row in won["03_quality_checked"]["captions not kept"]] == ["borderline"]
    scores = {row["text"]: row["score"] for row in lost["03_quality_checked"]["scores"]}
    assert lost["03_quality_checked"]["reason"]["value"] == pytest.approx(max(scores.values())) and len(scores) == 2
    assert [row["message"] for row in command("failures", *where(tmp_path), "--json").rows] == ["not this one"]

    assert "nothing was done" in command("build", config).out
    assert command("build", config, "--to", "03_quality_checked").code == 0
    assert storyteller.requests.total() == 9, "a second run asks nothing"


def told(command: Command, folder: Path, sample: str) -> dict[str, dict[str, Any]]:
    story = json.loads(command("explain", sample, *where(folder), "--json").out)
    return {stage["stage"]: stage["facts"] for stage in story["stages"]}


def test_a_budget_that_ends_at_the_held_is_4_and_a_build_with_more_asks_for_them(
    command: Command, storyteller: Storyteller, tmp_path: Path
) -> None:
    write_stamps(tmp_path)
    held: dict[str, Any] = {"accept": 0.14, "reject": -0.9, "recaption_held": 1}
    short = command("build", write_config(tmp_path, storyteller.base_url, **held, max_requests=7))
    assert (short.code, storyteller.requests.total()) == (4, 7)
    assert {row["class"] for row in command("failures", *where(tmp_path), "--json").rows} >= {"budget"}
    done = command("build", write_config(tmp_path, storyteller.base_url, **held, max_requests=20))
    assert (done.code, storyteller.requests) == (0, {1: 1, 2: 2, 3: 2, 4: 2, 5: 2})


@pytest.mark.parametrize("ask", [{"policy": "none"}, {"base_url": None}], ids=["none", "no captioner"])
def test_without_a_captioner_held_samples_stay_held(
    command: Command, faults: FaultServer, tmp_path: Path, ask: dict[str, Any]
) -> None:
    words = {number: f"number {number}" for number in range(3)}
    config = write_set(tmp_path, faults.base_url, 3, words)
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["caption"] |= {"recaption_held": 1, **ask}
    settings["quality"] |= {"accept_above": 1.0}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    ended = command("build", config, "--to", "03_quality_checked")
    assert ended.code == 3 and "borderline" in ended.out, "the funnel comes first"
    assert funnel(command, tmp_path)["stages"]["03_quality_checked"]["held"] == 3
    assert not faults.requests


@dataclass
class Clock(FaultServer):
    """Notes when requests begin."""

    starts: list[float] = field(default_factory=list)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.starts.append(monotonic())
        await super()._answer(scope, receive, send)


CONCURRENCY, PER_MINUTE = 3, 120


def test_processes_share_one_pace(command: Command, tmp_path: Path) -> None:
    clock = Clock(latency_s=0.5)
    with running(clock) as address:
        config = write_set(
            tmp_path, f"{address}/v1", 16, concurrency=CONCURRENCY, requests_per_minute=PER_MINUTE, max_retries=0
        )
        done = command("build", config, "--engine", "processes", *TO_CAPTIONS)
    assert done.code == 0, done.err
    assert f"02 caption: 16 samples ({16 * (90 + 7):,} tokens)" in done.err, "others asked, and it was heard here"
    assert clock.requests == dict.fromkeys(range(16), 1)
    assert clock.most_at_once <= CONCURRENCY
    for first in clock.starts:
        for seconds in (1, 3, 6):
            within = sum(first <= start < first + seconds for start in clock.starts)
            assert within <= PER_MINUTE / 30 + PER_MINUTE / 60 * (seconds + FRESH_S)
    assert {row["outcome"] for row in _attempts(tmp_path)} == {"captioned"}
