"""Stage 02 against a server that misbehaves in every way on record, over real HTTP."""

from __future__ import annotations

import socket
import threading
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.captioning import HASTY, QUICK, config, make_shard, open_attempts, outcomes
from tests.servers.faults import (
    CAPTIONED,
    PERMANENT,
    REFUSED,
    TRANSIENT,
    FaultServer,
    caption,
    fault_server,
    number_in,
    picture,
)
from vlmdata.captioning.prompts import load_prompt
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Counts, Dataset, Shard
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError, UserError
from vlmdata.layout import Step
from vlmdata.progress import Listener, listening

pytestmark = pytest.mark.integration

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(scope="module")
def running_faults() -> Iterator[FaultServer]:
    with fault_server() as server:
        yield server


@pytest.fixture
def server(running_faults: FaultServer) -> FaultServer:
    running_faults.reset()
    return running_faults


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "store"), "faults")


def only_the_journal(dataset: Dataset) -> bool:
    """What was asked is written down; no checkpoint is."""
    written = dataset.store.list(f"{dataset.name}/{Step.CAPTIONED}")
    return all(path.startswith(f"{dataset.name}/{Step.CAPTIONED}/journal/") for path in written)


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_passing_fault_is_retried(server: FaultServer, dataset: Dataset, fault: str) -> None:
    server.scripts = {1: [fault]}
    shard = caption_shard(dataset, make_shard(dataset, range(3)), config(server), HASTY)
    assert outcomes(dataset, shard)[1] == ("captioned", None, server.requests[1])
    captions = dataset.read(shard, Step.CAPTIONED, "captions").to_pylist()
    assert [row["text"] for row in captions] == [caption(number) for number in range(3)]
    assert {row["lang"] for row in captions} == {"en"}
    assert all(row["origin"].startswith("model:m|alt-text@") for row in captions)
    assert server.requests[1] == 2


@pytest.mark.parametrize("form", ["429_seconds", "429_date"])
def test_retry_after_is_obeyed(server: FaultServer, dataset: Dataset, form: str) -> None:
    """The server turns away whoever comes before the moment it named, and one retry is all there is."""
    server.scripts = {number: [form] for number in range(4)}
    shard = caption_shard(dataset, make_shard(dataset, range(4)), config(server, max_retries=1), HASTY)
    assert set(outcomes(dataset, shard).values()) == {("captioned", None, 2)}


@pytest.mark.parametrize("fault", ["500", "reset", "truncated", "429"])
def test_a_lasting_fault_ends_after_three_retries_and_only_it_is_asked_again(
    server: FaultServer, dataset: Dataset, fault: str
) -> None:
    server.scripts = {2: [fault] * 4}
    before = make_shard(dataset, range(5))
    first = caption_shard(dataset, before, config(server), HASTY)
    manifest = dataset.manifest(first, Step.CAPTIONED)
    assert (manifest.samples.kept, manifest.samples.failed, manifest.open) == (4, 1, 1)
    assert manifest.reasons == {"caption_transient": 1}
    assert server.requests == {0: 1, 1: 1, 2: 4, 3: 1, 4: 1}

    again = caption_shard(dataset, before, config(server), HASTY)
    assert dataset.manifest(again, Step.CAPTIONED).samples == Counts(came=5, kept=4, failed=1)
    assert server.requests[2] == 4, "an attempt never sends a fifth request"

    open_attempts(dataset, first)
    second = caption_shard(dataset, before, config(server), HASTY)
    assert dataset.manifest(second, Step.CAPTIONED).samples == Counts(came=5, kept=5)
    assert server.requests == {0: 1, 1: 1, 2: 5, 3: 1, 4: 1}
    ids = dataset.read(second, Step.CAPTIONED, "captions", ["id"])["id"].to_pylist()
    assert ids == sorted(ids)

    third = caption_shard(dataset, before, config(server), HASTY)
    assert third == second and server.requests.total() == 9


@pytest.mark.parametrize("fault", [*PERMANENT, *REFUSED])
def test_what_no_retry_mends_is_asked_once_and_stays_settled(server: FaultServer, dataset: Dataset, fault: str) -> None:
    server.scripts = {0: [fault]}
    before = make_shard(dataset, range(2))
    shard = caption_shard(dataset, before, config(server), HASTY)
    failure = "permanent" if fault in PERMANENT else "refused"
    assert outcomes(dataset, shard)[0] == ("failed", failure, 1)
    manifest = dataset.manifest(shard, Step.CAPTIONED)
    assert manifest.open == 0 and manifest.reasons == {f"caption_{failure}": 1}
    caption_shard(dataset, before, config(server), HASTY)
    assert server.requests == {0: 1, 1: 1}


@pytest.mark.parametrize("fault", CAPTIONED)
def test_answers_are_taken_as_servers_give_them(server: FaultServer, dataset: Dataset, fault: str) -> None:
    server.scripts = {0: [fault]}
    shard = caption_shard(dataset, make_shard(dataset, range(1)), config(server), HASTY)
    row = dataset.read(shard, Step.CAPTIONED, "attempts").to_pylist()[0]
    usage = (None, None) if "usage" in fault else (90, 7)
    assert (row["outcome"], row["input_tokens"], row["output_tokens"]) == ("captioned", *usage)


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_server_that_never_finishes_runs_into_the_time_limit(
    server: FaultServer, dataset: Dataset, fault: str
) -> None:
    server.scripts = {0: [fault]}
    shard = caption_shard(dataset, make_shard(dataset, range(2)), config(server, timeout_s=0.5), HASTY)
    assert outcomes(dataset, shard)[0] == ("captioned", None, 2)


def test_policies(server: FaultServer, dataset: Dataset) -> None:
    before = make_shard(dataset, range(4), captioned=frozenset({1, 3}))
    none = caption_shard(dataset, before, CaptionConfig(policy="none"), HASTY)
    manifest = dataset.manifest(none, Step.CAPTIONED)
    assert manifest.reasons == {"no_caption": 2} and manifest.captions == Counts(came=4, kept=4)
    assert not server.requests

    missing = caption_shard(dataset, before, config(server), HASTY)
    assert server.requests == {0: 1, 2: 1}
    assert dataset.manifest(missing, Step.CAPTIONED).captions == Counts(came=6, kept=6)

    server.reset()
    every = caption_shard(dataset, before, config(server, policy="all"), HASTY)
    assert server.requests == {1: 1, 3: 1}, "what is answered is never asked again"
    rows = dataset.read(every, Step.CAPTIONED, "captions").to_pylist()
    origins = [row["origin"].partition("|")[0] for row in rows if int(row["id"], 16) == 1]
    assert origins == ["source", "source", "model:m"]


def test_a_failed_sample_that_has_originals_is_kept_and_stays_open(server: FaultServer, dataset: Dataset) -> None:
    server.scripts = {0: ["500"] * 4, 1: ["refusal"]}
    before = make_shard(dataset, range(3), captioned=frozenset({0, 1}))
    shard = caption_shard(dataset, before, config(server, policy="all"), HASTY)
    manifest = dataset.manifest(shard, Step.CAPTIONED)
    assert manifest.samples == Counts(came=3, kept=3) and manifest.open == 1
    assert manifest.captions == Counts(came=7, kept=5, failed=2)


def test_nothing_is_needed_when_nothing_is_wanted(dataset: Dataset) -> None:
    before = make_shard(dataset, range(2), captioned=frozenset({0, 1}))
    bare = caption_shard(dataset, before, CaptionConfig())
    other = caption_shard(dataset, before, CaptionConfig(model="another", prompt="Another one?"))
    assert bare == other and dataset.manifest(bare, Step.CAPTIONED).samples == Counts(came=2, kept=2)


def test_a_corrected_licence_reaches_the_samples_and_asks_nothing(server: FaultServer, dataset: Dataset) -> None:
    caption_shard(dataset, make_shard(dataset, range(2)), config(server), HASTY)
    corrected = caption_shard(dataset, make_shard(dataset, range(2), license_="CC-BY"), config(server), HASTY)
    samples = dataset.read(corrected, Step.CAPTIONED, "samples")
    assert set(samples["license"].to_pylist()) == {"CC-BY"} and server.requests.total() == 2


@pytest.mark.parametrize("status", ["401", "403"])
def test_a_refused_key_stops_at_once_and_loses_no_answer(
    server: FaultServer, dataset: Dataset, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.scripts = {number: [status] for number in range(4, 40)}
    before = make_shard(dataset, range(40))
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        caption_shard(dataset, before, config(server, concurrency=2), HASTY)
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)
    assert server.requests.total() < 12

    asked = set(server.requests)
    server.scripts = {}
    shard = caption_shard(dataset, before, config(server, concurrency=2), HASTY)
    assert dataset.manifest(shard, Step.CAPTIONED).samples == Counts(came=40, kept=40)
    assert set(range(4)) <= asked and all(server.requests[number] == 1 for number in range(4))


def test_nothing_is_written_when_the_key_is_refused_from_the_start(server: FaultServer, dataset: Dataset) -> None:
    server.scripts = {number: ["401"] * 9 for number in range(20)}
    with pytest.raises(ConfigError, match="401"):
        caption_shard(dataset, make_shard(dataset, range(20)), config(server), HASTY)
    assert only_the_journal(dataset)


def test_an_address_where_nobody_answers(dataset: Dataset) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    with pytest.raises(UserError, match="is the server running") as caught:
        caption_shard(dataset, make_shard(dataset, range(50)), CaptionConfig(base_url=url, model="m"), HASTY)
    assert url in str(caught.value) and only_the_journal(dataset)


def test_a_wrong_path_is_said_rather_than_recorded(dataset: Dataset) -> None:
    with fault_server() as fresh:
        wrong = config(fresh, base_url=f"{fresh.base_url}/nowhere")
        with pytest.raises(ConfigError, match="404"):
            caption_shard(dataset, make_shard(dataset, range(3)), wrong, HASTY)
    assert only_the_journal(dataset)


def test_a_server_that_dies_midway_leaves_the_rest_open(dataset: Dataset) -> None:
    before = make_shard(dataset, range(120))
    with fault_server() as dying:
        first = caption_shard(dataset, make_shard(dataset, range(200, 204)), config(dying), HASTY)
        settings_ = config(dying)
    assert dataset.manifest(first, Step.CAPTIONED).samples.kept == 4
    shard = caption_shard(dataset, before, settings_, HASTY)
    manifest = dataset.manifest(shard, Step.CAPTIONED)
    assert (manifest.samples.failed, manifest.open) == (120, 120)
    rows = dataset.read(shard, Step.CAPTIONED, "attempts").to_pylist()
    assert {row["requests"] for row in rows} == {0}, "what nobody heard does not count"
    assert sum(row["message"].startswith("not asked") for row in rows) > 40


def test_the_key_is_nowhere(
    server: FaultServer, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server.scripts = {0: ["echo_key"]}
    caplog.set_level("DEBUG")
    shard = caption_shard(dataset, make_shard(dataset, range(2)), config(server, api_key_env="MY_KEY"), HASTY)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    message = dataset.read(shard, Step.CAPTIONED, "attempts")["message"][0].as_py()
    assert message == "cannot use Bearer ***"
    assert KEY not in caplog.text
    tables = dataset.manifest(shard, Step.CAPTIONED).tables.values()
    assert all(KEY not in str(dataset.table(ref).to_pylist()) for ref in tables)
    manifests = [path for path in dataset.store.list(dataset.name) if path.endswith(".json")]
    assert manifests and all(KEY.encode() not in dataset.store.get(path) for path in manifests)


def test_concurrency_holds_over_all_shards_of_the_process(server: FaultServer, dataset: Dataset) -> None:
    server.latency_s = 0.01
    shards = [make_shard(dataset, range(start, start + 20)) for start in range(0, 80, 20)]
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda one: caption_shard(dataset, one, config(server, concurrency=3), HASTY), shards))
    assert [dataset.manifest(one, Step.CAPTIONED).samples.kept for one in done] == [20] * 4
    assert server.most_at_once == 3


class Heard(Listener):
    def __init__(self) -> None:
        self.samples = 0
        self.notes: list[str] = []

    def advance(self, step: Step, samples: int) -> None:
        self.samples += samples if step == Step.CAPTIONED else 0

    def note(self, step: Step, text: str) -> None:
        self.notes.append(text)


def test_what_is_spent_is_told_as_it_is_spent(server: FaultServer, dataset: Dataset) -> None:
    prices = {"m": {"input": 1.0, "output": 10.0}}
    server.scripts = {3: ["refusal"]}
    heard = Heard()
    with listening(heard):
        caption_shard(dataset, make_shard(dataset, range(5)), config(server, prices=prices, concurrency=1), HASTY)
    # Each answer, a refusal too, says that it took 90 tokens and 7: that is 160 millionths of a dollar.
    assert heard.notes == [f"${n * 0.00016:.4f}, {n * 97} tokens" for n in range(1, 6)]


def test_progress_is_told_as_pictures_are_asked(server: FaultServer, dataset: Dataset) -> None:
    server.scripts = {0: ["500"] * 4}
    before = make_shard(dataset, range(6), captioned=frozenset({5}))
    for asked in (5, 5, 5):
        heard = Heard()
        with listening(heard):
            caption_shard(dataset, before, config(server), HASTY)
        assert heard.samples == asked


def test_each_language_is_asked_for_and_each_sample_counts_once(server: FaultServer, dataset: Dataset) -> None:
    """English, and a language that nobody can tell from it: the server answers all in English."""
    before, both = make_shard(dataset, range(5)), config(server, language=["en", "tlh"], max_requests=7)
    server.scripts = {2: ["refusal"]}
    heard = Heard()
    with listening(heard):
        first = caption_shard(dataset, before, both, HASTY)
    manifest = dataset.manifest(first, Step.CAPTIONED)
    assert (server.requests.total(), heard.samples) == (7, 5)
    assert (manifest.captions.came, manifest.captions.kept, manifest.captions.failed, manifest.open) == (10, 6, 4, 3)
    done = caption_shard(dataset, before, both.model_copy(update={"max_requests": None}), HASTY)
    assert server.requests == dict.fromkeys(range(5), 2), "nothing is asked twice"
    assert dataset.manifest(done, Step.CAPTIONED).samples.kept == 5
    assert open_attempts(dataset, done) == 1
    done = caption_shard(dataset, before, both.model_copy(update={"max_requests": None}), HASTY)
    assert server.requests == Counter({**dict.fromkeys(range(5), 2), 2: 3})
    captions = [(row["lang"], row["text"]) for row in dataset.read(done, Step.CAPTIONED, "captions").to_pylist()]
    assert captions == [(tag, caption(number)) for number in range(5) for tag in ("en", "tlh")]
    words = {body["messages"][0]["content"][0]["text"] for body in server.bodies}
    assert len(words) == 2 and any("plain English sentence" in one for one in words)


def test_the_request_is_what_the_api_documents(server: FaultServer, dataset: Dataset) -> None:
    caption_shard(
        dataset, make_shard(dataset, range(1)), config(server, prompt="Was ist das?", low_resolution_below=0), HASTY
    )
    request = server.bodies[0]
    text, image = request["messages"][0]["content"]
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("m", 300, 0.0)
    assert text == {"type": "text", "text": "Was ist das?"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert "authorization" not in server.headers[0]


def test_of_small_pictures_alone_the_prompt_says_so_and_so_do_their_captions(
    server: FaultServer, dataset: Dataset
) -> None:
    """The shorter side counts, and that of the original: what is sent may be smaller."""
    sizes = {1: (255, 900), 2: (900, 255), 3: (256, 256), 4: (2048, 256)}
    shard = caption_shard(dataset, make_shard(dataset, range(5), sizes=sizes), config(server), HASTY)
    said = load_prompt("alt-text").low_resolution
    assert said and _told(server, said) == {0: True, 1: True, 2: True, 3: False, 4: False}
    origins = {
        int(row["id"], 16): row["origin"].split("|")[2:]
        for row in dataset.read(shard, Step.CAPTIONED, "captions").to_pylist()
    }
    assert origins == {0: ["low-resolution"], 1: ["low-resolution"], 2: ["low-resolution"], 3: [], 4: []}


def _told(server: FaultServer, words: str) -> dict[int, bool]:
    """Of which pictures the captioner was told so."""
    return {number_in(body): words in body["messages"][0]["content"][0]["text"] for body in server.bodies}


def test_how_much_was_sent_is_written_down(server: FaultServer, dataset: Dataset) -> None:
    """As it went over the wire: of a picture that was made smaller, what it was made to."""
    prices = {"m": {"input": 1.0, "output": 10.0, "image_tokens": 1000}}
    asked = config(server, prompt="Was ist das für eins?", low_resolution_below=0, prices=prices)
    shard = caption_shard(dataset, make_shard(dataset, range(2), sizes={1: (1024, 512)}), asked, HASTY)
    sent = {number_in(body): _picture_in(body) for body in server.bodies}
    rows = dataset.read(shard, Step.CAPTIONED, "attempts").to_pylist()
    assert [(row["sent_width"], row["sent_height"]) for row in rows] == [(64, 64), (512, 256)]
    assert [row["sent_bytes"] for row in rows] == [len(sent[0]), len(sent[1])]
    assert sent[0] == picture(0) and sent[1].startswith(b"\xff\xd8"), "as it is, and a JPEG"
    assert [row["sent_tokens"] for row in rows] == [1000 + 22 + 64] * 2, "the picture's, the words' bytes, a frame"


def _picture_in(body: dict[str, Any]) -> bytes:
    return b64decode(body["messages"][0]["content"][1]["image_url"]["url"].partition(",")[2])


SCRIPTS = st.lists(st.lists(st.sampled_from(QUICK), max_size=6), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scripts=SCRIPTS, retries=st.integers(0, 3))
def test_whatever_the_faults_each_picture_ends_once(
    running_faults: FaultServer, tmp_path_factory: pytest.TempPathFactory, scripts: list[list[str]], retries: int
) -> None:
    running_faults.reset()
    running_faults.scripts = dict(enumerate(scripts))
    dataset = Dataset(str(tmp_path_factory.mktemp("store")), "any")
    before = make_shard(dataset, range(len(scripts)))
    shard = caption_shard(dataset, before, config(running_faults, max_retries=retries), HASTY)
    manifest = dataset.manifest(shard, Step.CAPTIONED)
    captioned = set(dataset.read(shard, Step.CAPTIONED, "samples", ["id"])["id"].to_pylist())
    failed = set(dataset.read(shard, Step.CAPTIONED, "rejects", ["id"])["id"].to_pylist())
    assert captioned.isdisjoint(failed) and len(captioned | failed) == len(scripts) == manifest.samples.came
    assert max(running_faults.requests.values()) <= 1 + retries <= 4
    for number, script in enumerate(scripts):
        expected = _expected(script, retries)
        assert outcomes(dataset, shard)[number] == expected
        assert running_faults.requests[number] == expected[2]


def _expected(script: list[str], retries: int) -> tuple[str, str | None, int]:
    """The state machine as the rules say it, without the machinery."""
    for sent in range(1, 2 + retries):
        fault = script[sent - 1] if sent <= len(script) else "ok"
        if fault not in TRANSIENT:
            failure = "permanent" if fault in PERMANENT else "refused" if fault in REFUSED else None
            return ("failed" if failure else "captioned", failure, sent)
    return ("failed", "transient", 1 + retries)


def test_shards_asked_at_once_stop_together(server: FaultServer, dataset: Dataset) -> None:
    """One line for the person, however many shards were under way."""
    server.latency_s = 0.01
    server.scripts = {number: ["403"] * 9 for number in range(80)}
    shards = [make_shard(dataset, range(start, start + 20)) for start in range(0, 80, 20)]
    start = threading.Barrier(4)

    def refused(shard: Shard) -> str:
        start.wait()
        with pytest.raises(ConfigError) as caught:
            caption_shard(dataset, shard, config(server, concurrency=2), HASTY)
        return str(caught.value)

    with ThreadPoolExecutor(4) as threads:
        assert all("caption.base_url" in message for message in threads.map(refused, shards))
    assert server.requests.total() < 20
