"""Pictures that travel as links: a captioner fetches them from a real S3 server, as long as they are asked about."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.integration.captioning import HASTY, make_shard, outcomes
from tests.integration.processes import wait_until
from tests.integration.seaweed import S3
from tests.integration.test_batch_captions import child, finish, interrupted_when, killed_when, number_of
from tests.servers import faults
from tests.servers.batches import BatchServer, Dialect, batch_server, sent_picture
from vlmdata.captioning.endings import Waits
from vlmdata.captioning.links import ByLink, transport_for
from vlmdata.captioning.pictures import Picture, for_sending
from vlmdata.captioning.serving import running
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError, UserError
from vlmdata.layout import original_of_sent

pytestmark = pytest.mark.integration

BUCKET = "vlmdata"
MAX_SIDE = 96
SENT = "links/02_captioned/sent"
_TURNED = 6
"""The EXIF orientation of a camera that was held upright."""


@dataclass
class Fetched:
    """What a captioner got by a link."""

    url: str
    data: bytes
    media_type: str


@dataclass
class Captioner:
    """Answers in either dialect, and looks at what it is sent."""

    base_url: str = ""
    script: list[str] = field(default_factory=list)
    """What happens to the first requests."""
    fetched: list[Fetched] = field(default_factory=list)

    async def __call__(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        self.fetched.append(await run_in_threadpool(fetch, sent_picture(asked)))
        fault = self.script.pop(0) if self.script else "ok"
        if fault == "hang":
            await run_in_threadpool(time.sleep, 1.0)
        if fault.isdigit():
            return JSONResponse({"error": {"message": f"injected {fault}", "type": "api_error"}}, int(fault))
        return JSONResponse({**_OPENAI, **_ANTHROPIC})


_SAID = "A picture of one colour."
_OPENAI: dict[str, Any] = {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": _SAID}}]}
_ANTHROPIC: dict[str, Any] = {
    "type": "message",
    "content": [{"type": "text", "text": _SAID}],
    "stop_reason": "end_turn",
}


def fetch(url: str) -> Fetched:
    """Without keys, as a stranger's server would."""
    with urlopen(url) as answer:
        return Fetched(url, answer.read(), answer.headers["content-type"])


@pytest.fixture
def captioner() -> Iterator[Captioner]:
    found = Captioner()
    routes = [Route(f"/v1{path}", found.__call__, methods=["POST"]) for path in ("/chat/completions", "/messages")]
    with running(Starlette(routes=routes)) as address:
        found.base_url = f"{address}/v1"
        yield found


@pytest.fixture
def dataset(s3: S3, request: pytest.FixtureRequest) -> Dataset:
    return Dataset(f"s3://{BUCKET}/{abs(hash(request.node.nodeid)):x}", "links")


@pytest.fixture(params=["openai", "anthropic"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


@pytest.fixture
def batches() -> Iterator[BatchServer]:
    with batch_server() as server:
        server.number_of, server.fetch = number_of, lambda url: fetch(url).data
        yield server


def config(server: Captioner | BatchServer, **changes: object) -> CaptionConfig:
    settings = {"base_url": server.base_url, "model": "m", "images": "presigned", "max_side": MAX_SIDE}
    return CaptionConfig.model_validate({**settings, "concurrency": 4, **changes})


def turned(number: int, side: int = 300) -> bytes:
    """A camera's picture: too large, and lying on its side."""
    sink, exif = BytesIO(), Image.Exif()
    exif[0x0112] = _TURNED
    Image.new("RGB", (side, side // 2), faults.colour(number)).save(sink, "JPEG", exif=exif)
    return sink.getvalue()


def small(number: int, side: int = 48) -> bytes:
    """One that is sent as it is."""
    sink = BytesIO()
    Image.new("RGB", (side, side), faults.colour(number)).save(sink, "WEBP", lossless=True)
    return sink.getvalue()


def shard_of(dataset: Dataset, pictures: list[bytes]) -> Shard:
    return make_shard(dataset, range(len(pictures)), pictures=dict(enumerate(pictures)))


def sent_now(dataset: Dataset) -> list[str]:
    """Less the folder itself, which this server keeps when it is empty."""
    return [path for path in dataset.store.list(SENT) if path != SENT]


def in_batches(poll_s: float = 0.02) -> Waits:
    return Waits(HASTY.backoff, poll_s)


def test_a_captioner_gets_by_link_what_it_would_get_in_the_request(
    captioner: Captioner, dataset: Dataset, dialect: Dialect
) -> None:
    pictures = [turned(1), small(2), faults.picture(3)]
    before = shard_of(dataset, pictures)
    shard = caption_shard(dataset, before, config(captioner, provider=dialect), HASTY)
    assert set(outcomes(dataset, shard).values()) == {("captioned", None, 1)}
    carried = {(one.data, one.media_type) for one in (for_sending(picture, MAX_SIDE) for picture in pictures)}
    assert {(one.data, one.media_type) for one in captioner.fetched} == carried
    assert {one.media_type for one in captioner.fetched} == {"image/jpeg", "image/webp", "image/png"}
    jpeg = next(one.data for one in captioner.fetched if one.media_type == "image/jpeg")
    with Image.open(BytesIO(jpeg)) as opened:
        assert opened.size == (MAX_SIDE // 2, MAX_SIDE), "upright, and no larger than asked"
    assert sent_now(dataset) == []


def test_a_link_is_signed_holds_no_secret_and_ends(captioner: Captioner, dataset: Dataset, s3: S3) -> None:
    caption_shard(dataset, shard_of(dataset, [small(1)]), config(captioner, timeout_s=7), HASTY)
    (fetched,) = captioner.fetched
    said = parse_qs(urlsplit(fetched.url).query)
    assert 7 < int(said["X-Amz-Expires"][0]) < 3600, "as long as it may be asked about, and not for ever"
    assert said["X-Amz-Signature"] and s3.secret not in fetched.url
    with pytest.raises(HTTPError) as gone:
        fetch(fetched.url)
    assert gone.value.code == 404

    link = ByLink(dataset, 1).carry(Picture(b"bytes", "image/png", 1, 1), b"of").url or ""
    assert fetch(link).data == b"bytes"
    for wrong in (link.partition("?")[0], link.replace("X-Amz-Signature=", "X-Amz-Signature=0"), link):
        if wrong == link:
            time.sleep(2.1)
        with pytest.raises(HTTPError) as refused:
            fetch(wrong)
        assert refused.value.code in (400, 403)


@pytest.mark.parametrize("fault", ["500", "400", "hang"])
def test_nothing_stays_after_failures(captioner: Captioner, dataset: Dataset, fault: str) -> None:
    captioner.script = [fault] * 99
    before = shard_of(dataset, [small(number) for number in range(3)])
    shard = caption_shard(dataset, before, config(captioner, max_retries=1, timeout_s=0.6), HASTY)
    failures = {failure for _, failure, _ in outcomes(dataset, shard).values()}
    assert failures == {"permanent" if fault == "400" else "transient"}
    assert len(captioner.fetched) >= 3 and sent_now(dataset) == []


def test_nothing_stays_after_a_refused_key_or_an_interruption(captioner: Captioner, dataset: Dataset) -> None:
    before = shard_of(dataset, [small(number) for number in range(6)])
    captioner.script = ["401"] * 99
    with pytest.raises(ConfigError, match="is refused"):
        caption_shard(dataset, before, config(captioner), HASTY)
    assert sent_now(dataset) == []
    captioner.script, captioner.fetched[:] = ["hang"] * 99, []
    with pytest.raises(KeyboardInterrupt), interrupted_when(lambda: len(captioner.fetched) >= 2):
        caption_shard(dataset, before, config(captioner, concurrency=2), HASTY)
    wait_until(lambda: sent_now(dataset) == [], "what was being asked about is deleted", patience_s=20)


def test_what_a_killed_run_left_is_deleted_once_its_links_have_ended(dataset: Dataset, captioner: Captioner) -> None:
    ended, live = ByLink(dataset, -1_000), ByLink(dataset, 1_000)
    picture = Picture(b"bytes", "image/png", 1, 1)
    ended.carry(picture, b"of")
    live.carry(picture, b"of")
    dataset.store.put(f"{SENT}/a stranger's.png", b"stays")
    left = sent_now(dataset)
    transport_for(dataset, config(captioner), 60.0)
    assert len(left) == 3 and set(sent_now(dataset)) == {left[-1], left[-2]}


def test_two_that_ask_about_one_picture_do_not_take_it_from_each_other(dataset: Dataset) -> None:
    picture = Picture(b"bytes", "image/png", 1, 1)
    one, other = ByLink(dataset, 60), ByLink(dataset, 60)
    first, second = one.carry(picture, b"of"), other.carry(picture, b"of")
    one.forget(first)
    one.forget(first)
    assert fetch(second.url or "").data == b"bytes"
    originals = [original_of_sent(path) for path in sent_now(dataset)]
    assert originals == [sha256(b"of").hexdigest()], "by its name a withdrawal finds it"


def test_a_folder_has_no_links(captioner: Captioner, tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path / "store"), "links")
    with pytest.raises(ConfigError, match="is no bucket that links can lead to") as caught:
        caption_shard(dataset, make_shard(dataset, range(1)), config(captioner), HASTY)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value) and not captioner.fetched


def test_a_batch_has_its_pictures_until_its_end(batches: BatchServer, dataset: Dataset, dialect: Dialect) -> None:
    before = shard_of(dataset, [turned(number) for number in range(5)])
    batches.polls = 10**6
    there: list[int] = []

    def look() -> None:
        wait_until(lambda: batches.visits["poll"] >= 2, "the batch is under way", pause_s=0.02)
        there.append(len(sent_now(dataset)))
        finish(batches)

    looking = threading.Thread(target=look)
    looking.start()
    shard = caption_shard(dataset, before, config(batches, provider=dialect, batch=True), in_batches())
    looking.join()
    assert there == [5] and sent_now(dataset) == []
    assert {outcome for outcome, *_ in outcomes(dataset, shard).values()} == {"captioned"}
    links = [sent_picture(request) for batch in batches.batches.values() for request in batch.requests.values()]
    (expires,) = {parse_qs(urlsplit(link).query)["X-Amz-Expires"][0] for link in links}
    assert int(expires) > 24 * 3600


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_a_batch_keeps_its_pictures_when_its_run_ends_before_it(
    batches: BatchServer, dataset: Dataset, how: str
) -> None:
    before = shard_of(dataset, [small(number) for number in range(4)])
    batches.polls = 10**6
    settings = config(batches, batch=True)
    with stopped(how, batches):
        if how == "killed":
            killed_when(child(dataset, before, settings), lambda: batches.visits["poll"] > 0, "polling")
        else:
            caption_shard(dataset, before, settings, in_batches())
    assert len(sent_now(dataset)) == 4, "the API may fetch them only now"
    with stopped("interrupted", batches):
        caption_shard(dataset, before, settings, in_batches())
    assert len(sent_now(dataset)) == 4, "whoever takes it up"
    finish(batches)
    shard = caption_shard(dataset, before, settings, in_batches())
    assert set(outcomes(dataset, shard).values()) == {("captioned", None, 1)} and sent_now(dataset) == []


@contextmanager
def stopped(how: str, server: BatchServer) -> Iterator[None]:
    if how == "killed":
        yield
        return
    seen = server.visits["poll"]
    with pytest.raises(KeyboardInterrupt), interrupted_when(lambda: server.visits["poll"] > seen):
        yield


@pytest.mark.parametrize("fault", ["401", "503", "failed"])
def test_a_batch_that_is_not_taken_leaves_nothing(batches: BatchServer, dataset: Dataset, fault: str) -> None:
    before = shard_of(dataset, [small(number) for number in range(4)])
    if fault == "failed":
        batches.ending, batches.errors = "failed", [{"code": "model_not_found", "message": "no model m"}]
    batches.faults = {"upload": [fault] * 3} if fault.isdigit() else {}
    settings = config(batches, batch=True)
    if fault == "503":
        caption_shard(dataset, before, settings, in_batches())
    else:
        with pytest.raises(UserError):
            caption_shard(dataset, before, settings, in_batches())
    assert sent_now(dataset) == []
