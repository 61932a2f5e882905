"""Stage 02 by batch APIs, end to end over real HTTP: half the price, nothing asked twice, whatever is killed when."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.integration.captioning import PRICE, USED, make_shard, outcomes
from tests.integration.processes import wait_until
from tests.integration.warm import Forked
from tests.servers.batches import BatchServer, Dialect, batch_server, picture_caption
from tests.servers.faults import picture
from vlmdata.captioning import batch_fetching
from vlmdata.captioning.backoff import Backoff
from vlmdata.captioning.batch_records import BatchRecords
from vlmdata.captioning.batches.base import BatchLimits
from vlmdata.captioning.endings import Waits
from vlmdata.captioning.journal.log import Log
from vlmdata.captioning.journal.records import NANO
from vlmdata.captioning.plan import plan_captions
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError, UserError
from vlmdata.layout import Step

pytestmark = pytest.mark.integration

HASTY = Waits(Backoff(first_s=0.002, longest_s=0.01), poll_s=0.02)
KEY = "sk-test-0123456789abcdef"
HALF = round(USED / 2 * NANO)
"""Nanodollars that an answer costs in a batch."""
HANDING_IN = {"openai": "upload", "anthropic": "create"}
"""The step with which handing in begins."""


def number_of(image: bytes) -> int:
    with Image.open(BytesIO(image)) as opened:
        pixel: Any = opened.convert("RGB").getpixel((5, 5))
    red, green, blue = (round(level / 50) for level in pixel)
    return red + 6 * green + 36 * blue


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with batch_server() as running:
        running.number_of = number_of
        yield running


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "store"), "batches")


@pytest.fixture(params=["openai", "anthropic"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


def config(server: BatchServer, dialect: Dialect = "openai", **changes: object) -> CaptionConfig:
    settings = {"base_url": server.base_url, "model": "m", "provider": dialect, "batch": True, "prices": {"m": PRICE}}
    return CaptionConfig.model_validate({**settings, **changes})


def account(dataset: Dataset) -> Any:
    return Log(dataset.store, dataset.name).book.account


def open_claims(dataset: Dataset) -> int:
    return sum(len(entry.open) for entry in Log(dataset.store, dataset.name).book.entries.values())


def attempts(dataset: Dataset, shard: Shard) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dataset.read(shard, Step.CAPTIONED, "attempts").to_pylist()
    return found


def is_whole(dataset: Dataset, shard: Shard, number: int) -> bool:
    captions = dataset.read(shard, Step.CAPTIONED, "captions").to_pylist()
    return [row["text"] for row in captions] == [picture_caption(each) for each in range(number)]


def once(number: int) -> Counter[int]:
    return Counter(range(number))


def test_captions_come_at_half_the_price(server: BatchServer, dataset: Dataset, dialect: Dialect) -> None:
    server.polls = 3
    before = make_shard(dataset, range(20))
    shard = caption_shard(dataset, before, config(server, dialect), HASTY)
    assert is_whole(dataset, shard, 20) and len(server.batches) == 1
    total = account(dataset)
    assert (total.requests, total.settled, total.reserved) == (20, 20 * HALF, 0)
    rows = attempts(dataset, shard)
    assert {row["cost"] for row in rows} == {HALF / NANO} and {row["requests"] for row in rows} == {1}
    assert {(row["sent_width"], row["sent_height"]) for row in rows} == {(64, 64)}
    plan = plan_captions(dataset, [before], config(server, dialect))
    assert (plan.answered, plan.requests) == (20, 0)


def test_all_languages_go_in_one_batch(server: BatchServer, dataset: Dataset, dialect: Dialect) -> None:
    both = config(server, dialect, language=["en", "tlh"])
    shard = caption_shard(dataset, make_shard(dataset, range(5)), both, HASTY)
    said = [(row["lang"], row["text"]) for row in dataset.read(shard, Step.CAPTIONED, "captions").to_pylist()]
    assert said == [(tag, picture_caption(number)) for number in range(5) for tag in ("en", "tlh")]
    assert server.asked == dict.fromkeys(range(5), 2) and len(server.batches) == 1
    assert account(dataset).settled == 10 * HALF


def test_what_is_answered_is_not_asked_again(server: BatchServer, dataset: Dataset, dialect: Dialect) -> None:
    caption_shard(dataset, make_shard(dataset, range(5)), config(server, dialect), HASTY)
    shard = caption_shard(dataset, make_shard(dataset, range(8)), config(server, dialect), HASTY)
    assert is_whole(dataset, shard, 8) and server.asked == once(8)


@pytest.mark.parametrize("limits", [BatchLimits(8, 10**6, 160), BatchLimits(10**6, 5_000, 160)], ids=["many", "large"])
def test_a_set_larger_than_a_batch_is_several_at_once(
    server: BatchServer, dataset: Dataset, dialect: Dialect, limits: BatchLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"vlmdata.captioning.batches.{dialect}.LIMITS", limits)
    server.polls = 10**6

    def end_all() -> None:
        wait_until(lambda: sum(len(batch.requests) for batch in server.batches.values()) == 20, "all are handed in")
        finish(server)

    ending = threading.Thread(target=end_all)
    ending.start()
    shard = caption_shard(dataset, make_shard(dataset, range(20)), config(server, dialect), HASTY)
    ending.join()
    assert is_whole(dataset, shard, 20) and server.asked == once(20)
    assert len(server.batches) >= 3


CHILD = """
import json, os, signal, sys
from vlmdata.captioning import batch_fetching
from vlmdata.captioning.backoff import Backoff
from vlmdata.captioning.batch_records import BatchRecords
from vlmdata.captioning.endings import Waits
from vlmdata.captioning.journal import writer
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import CaptionConfig
told = json.loads(sys.argv[1])
batch_fetching._CHUNK = 4
if told["elsewhere"]:
    writer._place = lambda: "another-machine/pid"
if told["die_at"]:
    setattr(BatchRecords, told["die_at"], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
caption_shard(Dataset(*told["dataset"]), Shard(**told["shard"]), CaptionConfig(**told["config"]),
              Waits(Backoff(0.002, 0.01), poll_s=0.02))
# Libraries' own threads abort an ending interpreter now and then; everything is durable by now.
os._exit(0)
"""


def child(dataset: Dataset, shard: Shard, settings: CaptionConfig, die_at: str = "", elsewhere: bool = False) -> Forked:
    told = {
        "dataset": [dataset.store_url, dataset.name],
        "shard": {"name": shard.name, "rows": shard.rows, "manifests": dict(shard.manifests)},
        "config": settings.model_dump(mode="json"),
        "die_at": die_at,
        "elsewhere": elsewhere,
    }
    return Forked([sys.executable, "-c", CHILD, json.dumps(told)])


def killed_when(process: Forked, true: Callable[[], bool], what: str) -> None:
    """SIGKILL once something is so; its connections are closed then."""
    wait_until(true, what, pause_s=0.02)
    process.kill()
    process.wait()


MOMENTS = ("claimed", "handing in", "handed in", "unrecorded", "polling", "results")
ARRIVED = ("handed in", "unrecorded", "polling", "results")


def kill_a_run(server: BatchServer, dataset: Dataset, before: Shard, moment: str, elsewhere: bool) -> None:
    """A run that dies in this moment; the server goes on as if nothing had been."""
    dialect: Dialect = server.dialect  # type: ignore[attr-defined]
    settings = config(server, dialect)
    deadly = {"claimed": "begin", "unrecorded": "accept"}
    if moment in deadly:
        assert child(dataset, before, settings, deadly[moment], elsewhere).wait(120) == -signal.SIGKILL
        return
    step = {"handing in": HANDING_IN[dialect], "handed in": "create", "polling": "poll", "results": "download"}[moment]
    server.faults = {"handing in": {step: ["hang"]}, "handed in": {step: ["mute"]}}.get(moment, {})
    server.polls = 10**6 if moment == "polling" else 0
    server.scripts = {0: ["stall"]} if moment == "results" else {}
    process = child(dataset, before, settings, elsewhere=elsewhere)

    def is_time() -> bool:
        arrived = moment != "handed in" or len(server.batches) == 1
        return server.visits[step] >= 1 and arrived and (moment != "results" or account(dataset).answers >= 8)

    killed_when(process, is_time, moment)
    server.outcomes = dict.fromkeys(server.outcomes, "ok")
    server.scripts = {}


def finish(server: BatchServer) -> None:
    for batch in server.batches.values():
        batch.polls_left = 0
    server.polls = 0


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_is_taken_up_where_it_was(
    server: BatchServer,
    dataset: Dataset,
    dialect: Dialect,
    moment: str,
    elsewhere: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.dialect = dialect  # type: ignore[attr-defined]
    before = make_shard(dataset, range(12))
    kill_a_run(server, dataset, before, moment, elsewhere)
    assert open_claims(dataset) > 0 and len(server.batches) == (moment in ARRIVED)
    # A process that may be alive elsewhere gets this long, once it has begun to hand in.
    monkeypatch.setattr(batch_fetching, "LONGEST_SUBMISSION_S", 1.0)
    monkeypatch.setattr(batch_fetching, "_FROM_CLAIM_TO_BEGIN_S", 1.0)
    finish(server)
    shard = caption_shard(dataset, before, config(server, dialect), HASTY)
    assert is_whole(dataset, shard, 12)
    assert len(server.batches) == 1 and server.asked == once(12)
    total = account(dataset)
    assert (total.requests, total.settled, total.reserved) == (12, 12 * HALF, 0)
    rows = attempts(dataset, shard)
    assert {(row["requests"], row["sent_width"]) for row in rows} == {(1, 64)}


def test_a_batch_that_may_be_ours_is_waited_for(server: BatchServer, dataset: Dataset) -> None:
    """Anthropic does not say whose a batch is before its end: the run asks until it can be told."""
    server.dialect = "anthropic"  # type: ignore[attr-defined]
    before = make_shard(dataset, range(6))
    server.polls = 10**6
    assert child(dataset, before, config(server, "anthropic"), "accept").wait(120) == -signal.SIGKILL
    timer = threading.Timer(1.0, finish, [server])
    timer.start()
    shard = caption_shard(dataset, before, config(server, "anthropic"), HASTY)
    timer.join()
    assert is_whole(dataset, shard, 6) and len(server.batches) == 1 and server.visits["list"] > 3


def test_while_nobody_can_tell_nothing_is_handed_in_again(
    server: BatchServer, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make_shard(dataset, range(6))
    server.polls = 10**6
    assert child(dataset, before, config(server, "anthropic"), "accept").wait(120) == -signal.SIGKILL
    monkeypatch.setattr(batch_fetching, "PATIENCE", 3)
    first = caption_shard(dataset, before, config(server, "anthropic"), HASTY)
    rows = attempts(dataset, first)
    assert {(row["failure"], row["requests"]) for row in rows} == {("transient", 1)}
    assert "a rerun fetches it" in rows[0]["message"] and len(server.batches) == 1
    finish(server)
    assert is_whole(dataset, caption_shard(dataset, before, config(server, "anthropic"), HASTY), 6)
    assert server.asked == once(6)


@pytest.mark.parametrize("fault", ["lost", "500", "reset"])
def test_a_submission_without_an_answer_is_not_repeated_if_it_arrived(
    server: BatchServer, dataset: Dataset, dialect: Dialect, fault: str
) -> None:
    server.faults = {"create": [fault]}
    shard = caption_shard(dataset, make_shard(dataset, range(6)), config(server, dialect), HASTY)
    assert is_whole(dataset, shard, 6) and server.asked == once(6) and len(server.batches) == 1
    assert account(dataset).requests == 6


def test_what_failed_is_asked_again_in_another_batch_four_times_at_most(
    server: BatchServer, dataset: Dataset, dialect: Dialect
) -> None:
    server.scripts = {0: ["500"], 1: ["expired", "429"], 2: ["500"] * 9, 3: ["400"], 4: ["refusal"], 5: ["empty"]}
    before = make_shard(dataset, range(8))
    shard = caption_shard(dataset, before, config(server, dialect), HASTY)
    found = outcomes(dataset, shard)
    assert found == {
        0: ("captioned", None, 2),
        1: ("captioned", None, 3),
        2: ("failed", "transient", 4),
        3: ("failed", "permanent", 1),
        4: ("failed", "refused", 1),
        5: ("captioned", None, 2),
        6: ("captioned", None, 1),
        7: ("captioned", None, 1),
    }
    assert server.asked == {number: requests for number, (*_, requests) in found.items()}
    assert [len(batch.requests) for batch in server.batches.values()] == [8, 4, 2, 1]
    total = account(dataset)
    answers = 5 + 2  # the refusal and the empty one are paid for as well
    assert (total.requests, total.settled, total.reserved) == (15, answers * HALF, 0)
    caption_shard(dataset, before, config(server, dialect), HASTY)
    assert len(server.batches) == 4, "nobody asks a fifth time"


@pytest.mark.parametrize("outcome", ["expired", "cancelled"])
def test_what_expired_costs_nothing_and_what_is_missing_all_that_was_set_aside(
    server: BatchServer, dataset: Dataset, dialect: Dialect, outcome: str
) -> None:
    before = make_shard(dataset, range(2))
    settings = config(server, dialect, max_retries=0)
    worst = plan_captions(dataset, [make_shard(dataset, range(9, 10))], settings).cost_at_worst or 0.0
    server.scripts = {0: [outcome], 1: ["missing"]}
    shard = caption_shard(dataset, before, settings, HASTY)
    assert set(outcomes(dataset, shard).values()) == {("failed", "transient", 1)}
    assert account(dataset).settled == pytest.approx(worst / 2 * NANO, abs=1) and account(dataset).reserved == 0


def test_an_expired_batch_gives_what_it_has(server: BatchServer, dataset: Dataset) -> None:
    server.endings, server.scripts = ["expired"], {number: ["expired"] for number in range(3)}
    shard = caption_shard(dataset, make_shard(dataset, range(8)), config(server), HASTY)
    assert is_whole(dataset, shard, 8)
    assert [len(batch.requests) for batch in server.batches.values()] == [8, 3]


def test_a_batch_that_the_api_refuses_whole_is_handed_in_later(server: BatchServer, dataset: Dataset) -> None:
    """Such as with a full queue: no model saw anything of it, and so it is no request."""
    server.endings = ["failed"] * 6
    server.errors = [{"code": "token_limit_exceeded", "message": "enqueued tokens"}]
    shard = caption_shard(dataset, make_shard(dataset, range(4)), config(server), HASTY)
    assert is_whole(dataset, shard, 4) and len(server.batches) == 7
    assert (account(dataset).requests, account(dataset).settled) == (4, 4 * HALF)


def test_a_batch_that_is_refused_for_good_stops_the_run(server: BatchServer, dataset: Dataset) -> None:
    server.ending, server.errors = "failed", [{"code": "model_not_found", "message": "no model m"}]
    with pytest.raises(ConfigError, match=r"caption\.model = .m.: the batch failed: no model m") as caught:
        caption_shard(dataset, make_shard(dataset, range(4)), config(server), HASTY)
    assert "\n" not in str(caught.value) and len(server.batches) == 1
    assert (account(dataset).requests, account(dataset).spent) == (0, 0)


@pytest.mark.parametrize("status", ["401", "403"])
def test_a_refused_key_stops_at_once_with_one_line(
    server: BatchServer, dataset: Dataset, dialect: Dialect, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.faults = {HANDING_IN[dialect]: [status] * 99}
    before = make_shard(dataset, range(4))
    with pytest.raises(ConfigError, match="the key in OPENAI_API_KEY is refused") as caught:
        caption_shard(dataset, before, config(server, dialect), HASTY)
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)
    assert server.visits.total() == 1 and account(dataset).requests == 0 and open_claims(dataset) == 0
    server.faults = {}
    assert is_whole(dataset, caption_shard(dataset, before, config(server, dialect), HASTY), 4)


def test_an_address_without_a_batch_api_is_one_line(server: BatchServer, dataset: Dataset, dialect: Dialect) -> None:
    server.faults = {HANDING_IN[dialect]: ["404"]}
    with pytest.raises(ConfigError, match=r"it has no batch API \(404: .*\); set caption\.batch: false"):
        caption_shard(dataset, make_shard(dataset, range(4)), config(server, dialect), HASTY)
    assert (account(dataset).requests, open_claims(dataset)) == (0, 0)


def test_a_key_that_is_refused_while_polling_loses_nothing(
    server: BatchServer, dataset: Dataset, dialect: Dialect
) -> None:
    server.faults = {"poll": ["ok", "401"]}
    server.polls = 2
    before = make_shard(dataset, range(4))
    with pytest.raises(ConfigError, match="is refused"):
        caption_shard(dataset, before, config(server, dialect), HASTY)
    assert open_claims(dataset) == 4
    assert is_whole(dataset, caption_shard(dataset, before, config(server, dialect), HASTY), 4)
    assert server.asked == once(4)


def test_nobody_answers(dataset: Dataset, server: BatchServer, dialect: Dialect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UserError, match="is the server running"):
        address = f"http://127.0.0.1:{port}/v1"
        caption_shard(dataset, make_shard(dataset, range(4)), config(server, dialect, base_url=address), HASTY)
    assert (account(dataset).requests, open_claims(dataset)) == (0, 0)


def test_passing_troubles_pass(server: BatchServer, dataset: Dataset, dialect: Dialect) -> None:
    server.faults = {
        HANDING_IN[dialect]: ["503", "reset"],
        "list": ["500"],
        "poll": ["500", "reset", "not_json"],
        "download": ["500", "reset"],
    }
    shard = caption_shard(dataset, make_shard(dataset, range(4)), config(server, dialect), HASTY)
    assert is_whole(dataset, shard, 4) and server.asked == once(4)


def test_results_that_break_off_are_taken_to_their_end(
    server: BatchServer, dataset: Dataset, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_fetching, "_CHUNK", 2)
    server.scripts = {3: ["break"]}

    def mend() -> None:
        wait_until(lambda: server.visits["download"] >= 2, "taken again", pause_s=0.01)
        server.outcomes = dict.fromkeys(server.outcomes, "ok")

    mending = threading.Thread(target=mend)
    mending.start()
    shard = caption_shard(dataset, make_shard(dataset, range(9)), config(server, dialect), HASTY)
    mending.join()
    assert is_whole(dataset, shard, 9) and server.asked == once(9)
    assert account(dataset).settled == 9 * HALF


def test_the_budget_holds(server: BatchServer, dataset: Dataset, dialect: Dialect) -> None:
    before = make_shard(dataset, range(30))
    worst = (plan_captions(dataset, [before], config(server, dialect)).cost_at_worst or 0.0) / 2
    tight = config(server, dialect, max_cost=worst / 30 + 4 * HALF / NANO)
    first = caption_shard(dataset, before, tight, HASTY)
    rows = attempts(dataset, first)
    answered = sum(row["outcome"] == "captioned" for row in rows)
    assert answered == 5, "what is settled for less makes room for more"
    assert {row["failure"] for row in rows} == {None, "budget"} and server.asked.total() == 5
    assert account(dataset).spent <= (tight.max_cost or 0) * NANO < account(dataset).spent + worst / 30 * NANO
    assert dataset.manifest(first, Step.CAPTIONED).open == 25
    done = caption_shard(dataset, before, config(server, dialect, max_cost=worst), HASTY)
    assert is_whole(dataset, done, 30) and server.asked == once(30)


def test_a_bound_on_requests_is_exact(server: BatchServer, dataset: Dataset, dialect: Dialect) -> None:
    server.scripts = {number: ["500"] for number in range(12)}
    before = make_shard(dataset, range(12))
    shard = caption_shard(dataset, before, config(server, dialect, max_requests=5), HASTY)
    assert server.asked.total() == 5 == account(dataset).requests
    assert dataset.manifest(shard, Step.CAPTIONED).reasons == {"caption_budget": 12}


@pytest.mark.parametrize("lost", [False, True], ids=["well", "answer lost"])
def test_two_shards_at_once_keep_their_batches_apart_and_ask_once_about_what_they_share(
    server: BatchServer, dataset: Dataset, dialect: Dialect, lost: bool
) -> None:
    server.polls = 2
    server.faults = {"create": ["lost", "lost"]} if lost else {}
    shards = [make_shard(dataset, range(8)), make_shard(dataset, range(4, 14))]

    def both() -> list[Shard]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda one: caption_shard(dataset, one, config(server, dialect), HASTY), shards))

    with nudged(server, lost and dialect == "anthropic"):
        done = both()
    assert server.asked == once(14) and len(server.batches) == 2
    assert [dataset.manifest(one, Step.CAPTIONED).samples.kept for one in done] == [8, 10]
    assert (account(dataset).requests, account(dataset).settled) == (14, 14 * HALF)
    assert BatchRecords(dataset).all_accepted() == set(server.batches)


@contextmanager
def nudged(server: BatchServer, on: bool) -> Iterator[None]:
    """Batches whose id nobody knows are polled by nobody, and end all the same."""
    over = threading.Event()

    def nudge() -> None:
        while not over.wait(0.2):
            finish(server)

    thread = threading.Thread(target=nudge)
    if on:
        thread.start()
    yield
    over.set()
    if on:
        thread.join()


def test_two_runs_at_once_ask_nothing_twice(server: BatchServer, dataset: Dataset, dialect: Dialect) -> None:
    server.polls = 8
    before = make_shard(dataset, range(10))
    server.scripts = {0: ["500"], 1: ["refusal"]}
    runs = [child(dataset, before, config(server, dialect), elsewhere=bool(number)) for number in range(2)]
    assert [run.wait(120) for run in runs] == [0, 0]
    assert server.asked == once(10) + Counter({0: 1})
    total = account(dataset)
    assert (total.requests, total.settled, total.reserved) == (11, 10 * HALF, 0)
    assert len(dataset.store.list("batches/02_captioned/answers/manifests")) == 1
    shard = caption_shard(dataset, before, config(server, dialect), HASTY)
    assert outcomes(dataset, shard)[0] == ("captioned", None, 2)


def test_pictures_that_do_not_decode_are_not_sent(server: BatchServer, dataset: Dataset, dialect: Dialect) -> None:
    before = with_a_damaged_one(dataset, 5)
    shard = caption_shard(dataset, before, config(server, dialect), HASTY)
    found = outcomes(dataset, shard)
    assert found.pop(5) == ("failed", "permanent", 0)
    assert set(found.values()) == {("captioned", None, 1)} and server.asked == once(5)
    assert account(dataset).requests == 5


def with_a_damaged_one(dataset: Dataset, number: int) -> Shard:
    """Pictures of which the last is cut short."""
    return make_shard(dataset, range(number + 1), pictures={number: picture(number)[:40]})


@pytest.mark.parametrize("moment", ["handing in", "polling"])
def test_a_run_that_is_interrupted_goes_on_in_the_same_process(
    server: BatchServer, dataset: Dataset, dialect: Dialect, moment: str
) -> None:
    """Ctrl-C in a notebook, and the cell once more."""
    step = HANDING_IN[dialect] if moment == "handing in" else "poll"
    server.faults = {step: ["hang"]} if moment == "handing in" else {}
    server.polls = 10**6
    before = make_shard(dataset, range(6))
    with pytest.raises(KeyboardInterrupt), interrupted_when(lambda: server.visits[step] >= 1):
        caption_shard(dataset, before, config(server, dialect), HASTY)
    finish(server)
    shard = caption_shard(dataset, before, config(server, dialect), HASTY)
    assert is_whole(dataset, shard, 6) and server.asked == once(6) and len(server.batches) == 1
    assert (account(dataset).requests, account(dataset).reserved) == (6, 0)


@contextmanager
def interrupted_when(true: Callable[[], bool]) -> Iterator[None]:
    """Ctrl-C for this thread once something is so."""

    def interrupt() -> None:
        wait_until(true, "time to interrupt", pause_s=0.02)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_a_batch_at_another_address_is_left_in_peace(server: BatchServer, dataset: Dataset, dialect: Dialect) -> None:
    before = make_shard(dataset, range(4))
    server.polls = 10**6
    killed_when(child(dataset, before, config(server, dialect)), lambda: server.visits["poll"] > 0, "polling")
    with batch_server() as other:
        first = caption_shard(dataset, before, config(other, dialect), HASTY)
        assert other.visits.total() == 0
    message = attempts(dataset, first)[0]["message"]
    assert f"handed in at {server.base_url}" in message
    finish(server)
    assert is_whole(dataset, caption_shard(dataset, before, config(server, dialect), HASTY), 4)


def test_a_batch_that_is_gone_is_asked_anew_once_its_time_is_over(
    server: BatchServer, dataset: Dataset, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make_shard(dataset, range(4))
    server.polls = 10**6
    killed_when(child(dataset, before, config(server, dialect)), lambda: server.visits["poll"] > 0, "polling")
    server.batches.clear()
    first = caption_shard(dataset, before, config(server, dialect), HASTY)
    assert {row["failure"] for row in attempts(dataset, first)} == {"transient"} and not server.batches
    server.polls = 0
    monkeypatch.setattr("vlmdata.captioning.batch_claims.Batch.is_over", True)
    shard = caption_shard(dataset, before, config(server, dialect), HASTY)
    assert is_whole(dataset, shard, 4) and account(dataset).requests == 8
    assert account(dataset).settled > 8 * HALF, "what was lost may have been paid for"
    assert {row["requests"] for row in attempts(dataset, shard)} == {2}


def test_results_that_are_no_longer_kept_are_paid_for_and_asked_anew(server: BatchServer, dataset: Dataset) -> None:
    server.polls = 10**6
    before = make_shard(dataset, range(4))
    killed_when(child(dataset, before, config(server, "anthropic")), lambda: server.visits["poll"] > 0, "polling")
    finish(server)
    for batch in server.batches.values():
        batch.archived = True
    shard = caption_shard(dataset, before, config(server, "anthropic"), HASTY)
    assert is_whole(dataset, shard, 4) and account(dataset).requests == 8
    assert account(dataset).settled > 8 * HALF


def test_poll_pauses_grow_and_are_the_waits(server: BatchServer, dataset: Dataset) -> None:
    server.polls = 4
    slow = replace(HASTY, poll_s=0.05)
    caption_shard(dataset, make_shard(dataset, range(2)), config(server), slow)
    assert server.visits["poll"] == 4 + 2, "four in progress, one that tells the end, one for the results"
