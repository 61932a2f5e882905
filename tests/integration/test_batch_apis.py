"""Both batch APIs over real HTTP, against a server that misbehaves in every way on record."""

from __future__ import annotations

import asyncio
import json
import socket
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import anthropic
import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.batch_create_params import BatchCreateParams
from pydantic import TypeAdapter

from tests.servers.batches import MOMENT, REFUSED, BatchServer, Dialect, batch_server, caption
from vlmdata.captioning.anthropic import Anthropic
from vlmdata.captioning.batches import BATCH_APIS, wire
from vlmdata.captioning.batches.anthropic import AnthropicBatches
from vlmdata.captioning.batches.base import BatchApi, BatchState, BatchTrouble
from vlmdata.captioning.batches.openai import OpenAIBatches
from vlmdata.captioning.endpoint import Endpoint
from vlmdata.captioning.openai import OpenAI
from vlmdata.captioning.pictures import Picture
from vlmdata.captioning.provider import Answer, Fault, Question

pytestmark = pytest.mark.integration

T = TypeVar("T")
KEY = "sk-test-0123456789abcdef"
PICTURE = Picture(b"\xff\xd8\xff", "image/jpeg", 1, 1)
QUESTION = Question("m", "What is\nthis?\u2028", 20, 0.0)
BODIES = {"openai": OpenAI().body(PICTURE, QUESTION), "anthropic": Anthropic().body(PICTURE, QUESTION)}
UPLOADS = {"openai": ("upload", "create"), "anthropic": ("create",)}


@pytest.fixture(scope="module")
def running_batches() -> Iterator[BatchServer]:
    with batch_server() as server:
        yield server


@pytest.fixture
def server(running_batches: BatchServer) -> BatchServer:
    running_batches.reset()
    return running_batches


@pytest.fixture(params=["openai", "anthropic"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


@pytest.fixture
def api(server: BatchServer, dialect: Dialect) -> BatchApi:
    return BATCH_APIS[dialect](Endpoint(server.base_url, "KEY", KEY))


def over_http(work: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
    async def run() -> T:
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            return await work(http)

    return asyncio.run(run())


def asked(dialect: Dialect, token: str = "t", number: int = 4) -> list[tuple[str, bytes]]:
    return [(f"{token}-{each}", BODIES[dialect]) for each in range(number)]


def submit(api: BatchApi, dialect: Dialect, token: str = "t", number: int = 4) -> str:
    return over_http(lambda http: api.submit(http, asked(dialect, token, number), token))


def results(api: BatchApi, batch_id: str) -> dict[str, Answer | Fault]:
    async def collected(http: httpx.AsyncClient) -> dict[str, Answer | Fault]:
        return {custom_id: end async for custom_id, end in api.results(http, batch_id)}

    return over_http(collected)


def trouble(work: Callable[[httpx.AsyncClient], Awaitable[object]]) -> Fault:
    with pytest.raises(BatchTrouble) as caught:
        over_http(work)
    assert KEY not in str(caught.value) and "\n" not in str(caught.value) and str(caught.value)
    return caught.value.fault


def test_a_batch_there_and_back(server: BatchServer, api: BatchApi, dialect: Dialect) -> None:
    server.polls = 2
    batch_id = submit(api, dialect)
    states = [over_http(lambda http: api.poll(http, batch_id)) for _ in range(3)]
    assert states == [BatchState(False, 4), BatchState(False, 4), BatchState(True, 4, succeeded=4)]
    expected = {f"t-{each}": Answer(caption(f"t-{each}"), 200, 90, 7) for each in range(4)}
    assert results(api, batch_id) == expected


def test_what_arrives_is_what_was_asked(server: BatchServer, api: BatchApi, dialect: Dialect) -> None:
    batch = server.batches[submit(api, dialect)]
    assert batch.requests == {f"t-{each}": json.loads(BODIES[dialect]) for each in range(4)}
    for headers in server.headers:
        assert (headers.get("authorization"), headers.get("x-api-key")) == (
            (f"Bearer {KEY}", None) if dialect == "openai" else (None, KEY)
        )
        assert int(headers["content-length"]) > 0 and "transfer-encoding" not in headers
        assert headers["accept-encoding"] == "identity"
    if dialect == "openai":
        created = TypeAdapter(BatchCreateParams).validate_python(batch.created)
        assert created == batch.created and created["metadata"] == {"vlmdata": "t"}


OUTCOMES = {
    "400": ("permanent", 400), "401": ("transient", 401), "404": ("permanent", 404), "429": ("transient", 429),
    "500": ("transient", 500), "529": ("transient", 529), "refusal": ("refused", 200), "empty": ("transient", 200),
    "expired": ("transient", None), "cancelled": ("transient", None),
}  # fmt: skip


def test_a_batch_that_failed_in_part(server: BatchServer, api: BatchApi, dialect: Dialect) -> None:
    names = ["ok", *OUTCOMES, "missing"]
    server.outcomes = {f"t-{number}": name for number, name in enumerate(names)}
    ends = results(api, submit(api, dialect, number=len(names)))
    assert ends.pop("t-0") == Answer(caption("t-0"), 200, 90, 7)
    assert len(ends) == len(OUTCOMES), "the missing one is not made up"
    for number, name in enumerate(OUTCOMES, 1):
        end = ends[f"t-{number}"]
        assert isinstance(end, Fault) and (end.failure, end.status) == OUTCOMES[name] and end.message, name
        assert (end.blame == "key") == (name == "401")


def test_a_refusal_in_a_batch_tells_what_it_cost(server: BatchServer, api: BatchApi, dialect: Dialect) -> None:
    server.outcomes = {"t-0": "refusal"}
    end = results(api, submit(api, dialect))["t-0"]
    assert isinstance(end, Fault) and (end.input_tokens, end.output_tokens) == (90, 7)
    assert end.message == (REFUSED if dialect == "openai" else "the model refused")


def test_a_request_whose_model_timed_out_may_be_asked_again(server: BatchServer) -> None:
    server.outcomes = {"t-0": "timeout"}
    api = OpenAIBatches(Endpoint(server.base_url, "KEY"))
    end = results(api, submit(api, "openai"))["t-0"]
    assert end == Fault("transient", None, "never sent: timeout")


@pytest.mark.parametrize("ending", ["expired", "cancelled"])
def test_what_an_ended_batch_did_answer_is_taken(server: BatchServer, ending: str) -> None:
    server.ending, server.outcomes = ending, {"t-1": "missing", "t-2": "expired"}
    api = OpenAIBatches(Endpoint(server.base_url, "KEY"))
    batch_id = submit(api, "openai")
    assert over_http(lambda http: api.poll(http, batch_id)).ended
    ends = results(api, batch_id)
    assert ends.keys() == {"t-0", "t-2", "t-3"} and isinstance(ends["t-0"], Answer) and isinstance(ends["t-2"], Fault)


@pytest.mark.parametrize(
    ("errors", "failure", "blame", "said"),
    [
        ([{"code": "invalid_json_line", "message": "no JSON", "line": 3}], "permanent", "endpoint", "line 3"),
        ([{"code": "model_not_found", "message": "no model m"}], "permanent", "endpoint", "no model m"),
        ([{"code": "token_limit_exceeded", "message": "enqueued tokens"}], "transient", "picture", "enqueued"),
        ([{"code": "billing_hard_limit_reached", "message": "billing"}], "transient", "key", "billing"),
        ([{"code": "new", "message": f"for {KEY}"}, {}], "transient", "picture", "for ***"),
        ([], "transient", "picture", "no reason"),
    ],
)  # fmt: skip
def test_a_batch_that_failed_validation(
    server: BatchServer, errors: list[dict[str, Any]], failure: str, blame: str, said: str
) -> None:
    server.ending, server.errors = "failed", errors
    api = OpenAIBatches(Endpoint(server.base_url, "KEY", KEY))
    batch_id = submit(api, "openai")
    state = over_http(lambda http: api.poll(http, batch_id))
    assert state.ended and state.fault is not None and said in state.fault.message
    assert (state.fault.failure, state.fault.blame) == (failure, blame) and KEY not in state.fault.message
    assert results(api, batch_id) == {}


def test_results_that_are_no_longer_kept(server: BatchServer) -> None:
    api = AnthropicBatches(Endpoint(server.base_url, "KEY"))
    batch_id = submit(api, "anthropic")
    server.batches[batch_id].archived = True
    state = over_http(lambda http: api.poll(http, batch_id))
    assert state.ended and state.fault is not None and "no longer kept" in state.fault.message
    assert results(api, batch_id) == {}


FAULTS = {
    "401": ("transient", 401, "key"), "403": ("transient", 403, "key"), "404": ("permanent", 404, "endpoint"),
    "400": ("permanent", 400, "picture"), "429": ("transient", 429, "picture"), "500": ("transient", 500, "picture"),
    "529": ("transient", 529, "picture"), "redirect": ("permanent", 307, "endpoint"),
    "reset": ("transient", None, "picture"), "compressed": ("transient", None, "picture"),
}  # fmt: skip
ILL = dict.fromkeys(("not_json", "list", "huge"), ("transient", None, "picture"))
STEPS: dict[str, Callable[[BatchApi, httpx.AsyncClient, str], Awaitable[object]]] = {
    "list": lambda api, http, batch_id: api.find(http, "t"),
    "poll": lambda api, http, batch_id: api.poll(http, batch_id),
    "download": lambda api, http, batch_id: anext(api.results(http, batch_id)),
}


PLACES = [
    pytest.param(dialect, step, fault, id=f"{dialect}-{step}-{fault}")
    for dialect in UPLOADS
    for step in (*UPLOADS[dialect], *STEPS)
    for fault in (FAULTS if step == "download" else FAULTS | ILL)
]


@pytest.mark.parametrize(("dialect", "step", "fault"), PLACES, indirect=["dialect"])
def test_trouble_at_any_step_is_one_error_and_passes(
    server: BatchServer, api: BatchApi, dialect: Dialect, step: str, fault: str
) -> None:
    batch_id = submit(api, dialect, "t")
    server.visits.clear()
    server.faults = {step: [fault]}

    async def do(http: httpx.AsyncClient) -> object:
        if step in UPLOADS[dialect]:
            return await api.submit(http, asked(dialect, "u"), "u")
        return await STEPS[step](api, http, batch_id)

    said = trouble(do)
    assert (said.failure, said.status, said.blame) == (FAULTS | ILL)[fault]
    assert said.retry_after == (7.0 if fault == "429" else None)
    assert over_http(do), "the next try does"


@pytest.mark.parametrize("fault", ["no_id", "odd_id"])
def test_an_answer_without_a_usable_id_or_status(
    server: BatchServer, api: BatchApi, dialect: Dialect, fault: str
) -> None:
    server.faults = {"create": [fault], "poll": [fault]}
    assert "id" in trouble(lambda http: api.submit(http, asked(dialect), "t")).message
    assert "status" in trouble(lambda http: api.poll(http, "batch_0")).message


def test_a_batch_nobody_knows(api: BatchApi) -> None:
    assert trouble(lambda http: api.poll(http, "batch_9")).status == 404


def test_nobody_answers(dialect: Dialect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    api = BATCH_APIS[dialect](Endpoint(f"http://127.0.0.1:{port}/v1", "KEY"))
    fault = trouble(lambda http: api.submit(http, asked(dialect), "t"))
    assert (fault.failure, fault.status, fault.blame) == ("transient", None, "endpoint")


def test_a_server_that_never_finishes_runs_into_the_time_limit(server: BatchServer, dialect: Dialect) -> None:
    server.faults = {"poll": ["hang"]}
    endpoint = Endpoint(server.base_url, "KEY")
    classes: dict[str, Callable[..., BatchApi]] = {"openai": OpenAIBatches, "anthropic": AnthropicBatches}
    api = classes[dialect](endpoint, timeout_s=0.3)
    fault = trouble(lambda http: api.poll(http, "batch_0"))
    assert fault.failure == "transient" and "0.3 s" in fault.message


def test_a_batch_whose_id_was_lost_is_found_on_any_page(server: BatchServer, api: BatchApi, dialect: Dialect) -> None:
    ids = {token: submit(api, dialect, token) for token in ("a", "b", "c", "d", "e", "f", "g", "h")}
    server.faults = {"create": ["ok"] * server.visits["create"] + ["lost"]}
    assert trouble(lambda http: api.submit(http, asked(dialect, "z"), "z")).status is None
    assert over_http(lambda http: api.find(http, "z")) == list(server.batches)[-1]
    assert over_http(lambda http: api.find(http, "a")) == ids["a"]
    assert server.visits["list"] == 4, "one page, then three of three"
    assert over_http(lambda http: api.find(http, "never")) is None
    assert len(server.batches) == 9


def test_with_no_batches_none_is_found(api: BatchApi) -> None:
    assert over_http(lambda http: api.find(http, "t")) is None


def test_the_latest_of_two_submissions_is_found(server: BatchServer) -> None:
    api = OpenAIBatches(Endpoint(server.base_url, "KEY"))
    submit(api, "openai")
    assert over_http(lambda http: api.find(http, "t")) != (latest := submit(api, "openai"))
    assert over_http(lambda http: api.find(http, "t")) == latest


def test_a_batch_in_progress_is_found_by_openai_alone(server: BatchServer, api: BatchApi, dialect: Dialect) -> None:
    """Anthropic does not show whose it is: this must not read as `submit it again`."""
    server.polls = 9
    batch_id = submit(api, dialect)
    if dialect == "openai":
        assert over_http(lambda http: api.find(http, "t")) == batch_id
        return
    fault = trouble(lambda http: api.find(http, "t"))
    assert fault.failure == "transient" and "1 batches are in progress" in fault.message
    assert trouble(lambda http: api.find(http, "t", size=4)).failure == "transient"
    assert over_http(lambda http: api.find(http, "t", size=5)) is None
    assert over_http(lambda http: api.find(http, "t", known={batch_id})) is None
    server.batches[batch_id].polls_left = 0
    assert over_http(lambda http: api.find(http, "t", size=4)) == batch_id


def test_a_batch_that_is_known_is_no_orphan_and_costs_no_download(server: BatchServer) -> None:
    api = AnthropicBatches(Endpoint(server.base_url, "KEY"))
    known = {submit(api, "anthropic", token) for token in ("a", "b", "c", "d")}
    orphan = submit(api, "anthropic", "e", number=5)
    assert over_http(lambda http: api.find(http, "e", size=5, known=known)) == orphan
    assert server.visits["download"] == 1


def test_a_server_that_ignores_the_cursor_does_not_hold_us(server: BatchServer) -> None:
    endpoint = Endpoint(server.base_url, "KEY")
    ids = [submit(OpenAIBatches(endpoint), "openai", token) for token in ("a", "b", "c", "d")]

    async def walk(http: httpx.AsyncClient) -> list[str]:
        pages = wire.Wire(endpoint, OpenAI(), 5.0).pages(http, "/batches", "no_such_cursor")
        return [batch["id"] async for batch in pages]

    assert over_http(walk) == 2 * ids[:0:-1]


def test_results_of_a_batch_in_progress_are_not_none_but_trouble(
    server: BatchServer, api: BatchApi, dialect: Dialect
) -> None:
    server.polls = 9
    batch_id = submit(api, dialect)
    assert "has not ended" in trouble(lambda http: anext(api.results(http, batch_id))).message


def test_results_that_break_off_are_taken_again_from_the_beginning(
    server: BatchServer, api: BatchApi, dialect: Dialect
) -> None:
    server.outcomes = {"t-0": "break"}
    batch_id = submit(api, dialect)
    taken: list[str] = []

    async def take(http: httpx.AsyncClient) -> None:
        async for custom_id, _ in api.results(http, batch_id):
            taken.append(custom_id)

    assert trouble(take).status is None
    assert set(taken) <= {"t-1", "t-2", "t-3"}
    server.outcomes = {}
    assert len(results(api, batch_id)) == 4


def test_a_file_that_ends_amid_a_line_is_cut_off(server: BatchServer, api: BatchApi, dialect: Dialect) -> None:
    batch_id = submit(api, dialect)
    server.last = b'{"custom_id": "t-9", "resu'
    with pytest.raises(BatchTrouble, match="cut off"):
        results(api, batch_id)
    server.last = b'{"custom_id": "t-9"}'
    assert len(results(api, batch_id)) == 5, "a last line needs no end"


def test_lines_that_cannot_be_read_are_left_out(
    server: BatchServer, api: BatchApi, dialect: Dialect, caplog: pytest.LogCaptureFixture
) -> None:
    server.raw = [
        b"<html>\n",
        b"\n",
        b"[]\n",
        b'{"custom_id": 3}\n',
        b'{"custom_id": "t-1", "x": "' + b"x" * (3 << 20) + b'"}\n',
    ]
    assert results(api, submit(api, dialect)).keys() == {f"t-{each}" for each in range(4)}
    assert caplog.text.count("cannot be read") == 3


def test_a_key_that_a_server_repeats_goes_nowhere(server: BatchServer, api: BatchApi, dialect: Dialect) -> None:
    message = {"role": "assistant", "content": f"see {KEY}", "refusal": None}
    odd = {
        "openai": {"response": {"status_code": 200, "body": {"choices": [{"message": message}]}}},
        "anthropic": {
            "result": {"type": "succeeded", "message": {"content": [{"type": "text", "text": f"see {KEY}"}]}}
        },
    }
    server.raw = [json.dumps({"custom_id": "t-9", **odd[dialect]}).encode() + b"\n"]
    if dialect == "openai":
        server.raw.append(json.dumps({"custom_id": "t-8", "error": {"message": f"for {KEY}"}}).encode() + b"\n")
    ends = results(api, submit(api, dialect))
    assert ends["t-9"] == Answer("see ***", 200)
    assert KEY not in repr(ends) and KEY not in repr(api)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["t-0", "succeeded", "errored", "expired", "message", "error"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["custom_id", "response", "status_code", "body", "error", "code", "result", "type", "message"]),
        inner,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(JSON | st.binary(max_size=40), max_size=8))
def test_whatever_the_lines_each_id_has_an_end(
    running_batches: BatchServer, dialect: Dialect, found: list[Any]
) -> None:
    running_batches.reset()
    api = BATCH_APIS[dialect](Endpoint(running_batches.base_url, "KEY"))
    batch_id = submit(api, dialect)
    running_batches.raw = [(each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in found]
    ends = results(api, batch_id)
    assert {f"t-{each}" for each in range(1, 4)} <= ends.keys()
    assert all(isinstance(name, str) and isinstance(end, Answer | Fault) for name, end in ends.items())


def test_results_are_never_held_whole(server: BatchServer, api: BatchApi, dialect: Dialect) -> None:
    line = json.dumps({"custom_id": "u", "note": "x" * 10_000}).encode() + b"\n"
    batch_id = submit(api, dialect)
    server.raw = [line] * 2_000

    async def take(http: httpx.AsyncClient) -> int:
        tracemalloc.start()
        async with aclosing(api.results(http, batch_id)) as ends:
            number = sum([1 async for _ in ends])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < len(line) * 2_000 / 4
        return number

    assert over_http(take) == 2_004


def test_the_official_openai_client_speaks_to_the_same_server(server: BatchServer) -> None:
    """The server is right where a client that nobody here wrote agrees with it, both ways."""
    api = OpenAIBatches(Endpoint(server.base_url, "KEY", KEY))
    ours = submit(api, "openai")
    with openai.OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0) as client:
        official = client.batches.retrieve(ours)
        assert (official.status, official.metadata, official.created_at) == ("completed", {"vlmdata": "t"}, MOMENT)
        assert [batch.id for batch in client.batches.list()] == [ours]
        lines = client.files.content(str(official.output_file_id)).content.split(b"\n")
        assert len([line for line in lines if line]) == 4
        request = {"custom_id": "v-0", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m"}}
        file = client.files.create(file=("v.jsonl", json.dumps(request).encode()), purpose="batch")
        theirs = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"vlmdata": "v"}
        )
    assert over_http(lambda http: api.find(http, "v")) == theirs.id
    assert results(api, theirs.id) == {"v-0": Answer(caption("v-0"), 200, 90, 7)}


def test_the_official_anthropic_client_speaks_to_the_same_server(server: BatchServer) -> None:
    server.outcomes = {"t-1": "529", "t-2": "expired", "t-3": "cancelled"}
    api = AnthropicBatches(Endpoint(server.base_url, "KEY", KEY))
    ours = submit(api, "anthropic")
    root = server.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=root, api_key=KEY, max_retries=0) as client:
        official = client.messages.batches.retrieve(ours)
        assert (official.processing_status, official.request_counts.errored) == ("ended", 1)
        assert [batch.id for batch in client.messages.batches.list()] == [ours]
        kinds = {each.custom_id: each.result.type for each in client.messages.batches.results(ours)}
        assert kinds == {"t-0": "succeeded", "t-1": "errored", "t-2": "expired", "t-3": "canceled"}
        params: Any = json.loads(BODIES["anthropic"])
        theirs = client.messages.batches.create(requests=[{"custom_id": "v-0", "params": params}])
    assert over_http(lambda http: api.find(http, "v")) == theirs.id
    assert results(api, theirs.id) == {"v-0": Answer(caption("v-0"), 200, 90, 7)}


def test_an_empty_key_sends_none(server: BatchServer, dialect: Dialect) -> None:
    api = BATCH_APIS[dialect](replace(Endpoint(server.base_url, "KEY", KEY), key=None))
    submit(api, dialect)
    assert not {"authorization", "x-api-key"} & server.headers[0].keys()
