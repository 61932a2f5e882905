"""Stage 02 against LiteLLM's proxy: what a gateway in use says, in its own words and codes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.integration.litellm_proxy import ANSWERS, COMMAND, Proxy, litellm_proxy
from tests.servers.faults import picture
from vlmdata.captioning.backoff import Backoff
from vlmdata.captioning.endings import Waits
from vlmdata.captioning.shards import caption_shard
from vlmdata.checkpoint import Counts, Dataset, Result, Shard, run_once
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError
from vlmdata.layout import Step
from vlmdata.schema import CAPTIONS, FILTERED, IMAGES, filled

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not there; `make test` installs it"),
]

HASTY = Waits(Backoff(first_s=0.002, longest_s=0.01))
KEY = "LITELLM_TEST_KEY"
PICTURES = 3


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with litellm_proxy(tmp_path_factory.mktemp("litellm")) as running:
        yield running


@pytest.fixture(autouse=True)
def key(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, proxy.key)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "store"), "gateway")


@pytest.fixture
def shard(dataset: Dataset) -> Shard:
    """A few pictures without a caption, as stage 01 leaves them."""
    images = [picture(number) for number in range(PICTURES)]
    ids = [f"{number:032x}" for number in range(PICTURES)]
    shas = [sha256(image).hexdigest() for image in images]
    texts = {"id": pa.array(ids), "key": pa.array(ids), "sha256": pa.array(shas)}
    samples = filled(FILTERED, PICTURES, **texts, format="PNG", width=64, height=64)
    tables = {
        Step.RAW: {"images": pa.table([pa.array(ids), pa.array(images, pa.large_binary())], schema=IMAGES)},
        Step.FILTERED: {"samples": samples, "captions": CAPTIONS.empty_table()},
    }
    shard = Shard("00000", PICTURES)
    for step, made in tables.items():
        shard = run_once(dataset, shard, step, shas, {}, partial(_given, made))
    return shard


def _given(tables: dict[str, pa.Table], _: object) -> Result:
    return Result(tables, Counts(came=PICTURES, kept=PICTURES))


def config(proxy: Proxy, model: str, **changes: Any) -> CaptionConfig:
    return CaptionConfig(base_url=proxy.base_url, model=model, api_key_env=KEY, **changes)


def test_captions_come_with_what_they_used(proxy: Proxy, dataset: Dataset, shard: Shard) -> None:
    usage = proxy.says("describes", "What is this?")["usage"]
    before = proxy.asked()
    done = caption_shard(dataset, shard, config(proxy, "describes"), HASTY)
    manifest = dataset.manifest(done, Step.CAPTIONED)
    assert manifest.samples == manifest.captions == Counts(came=PICTURES, kept=PICTURES) and manifest.open == 0
    captions = dataset.read(done, Step.CAPTIONED, "captions").to_pylist()
    assert [row["text"].rstrip(".") for row in captions] == [ANSWERS["describes"].rstrip(".")] * PICTURES
    assert all(row["origin"].startswith("model:describes") for row in captions)
    for row in dataset.read(done, Step.CAPTIONED, "attempts").to_pylist():
        assert row["outcome"] == "captioned" and row["http_status"] == 200 and row["requests"] == 1
        assert row["output_tokens"] == usage["completion_tokens"] > 0 and row["input_tokens"] > 0
    assert proxy.asked() == before + PICTURES

    again = caption_shard(dataset, shard, config(proxy, "describes"), HASTY)
    assert again == done and proxy.asked() == before + PICTURES


def test_it_is_asked_in_the_dialect_of_messages_too(proxy: Proxy, dataset: Dataset, shard: Shard) -> None:
    done = caption_shard(dataset, shard, config(proxy, "describes", provider="anthropic"), HASTY)
    assert dataset.manifest(done, Step.CAPTIONED).samples == Counts(came=PICTURES, kept=PICTURES)
    for row in dataset.read(done, Step.CAPTIONED, "attempts").to_pylist():
        assert (row["http_status"], row["requests"]) == (200, 1)
        assert row["input_tokens"] > 0 and row["output_tokens"] > 0


@pytest.mark.parametrize(("model", "status"), [("busy", 429), ("broken", 500)])
def test_what_passes_is_asked_four_times_at_most_and_stays_open(
    proxy: Proxy, dataset: Dataset, shard: Shard, model: str, status: int
) -> None:
    before = proxy.asked()
    done = caption_shard(dataset, shard, config(proxy, model), HASTY)
    manifest = dataset.manifest(done, Step.CAPTIONED)
    assert manifest.samples == Counts(came=PICTURES, failed=PICTURES) and manifest.open == PICTURES
    assert manifest.reasons == {"caption_transient": PICTURES}
    attempts = dataset.read(done, Step.CAPTIONED, "attempts").to_pylist()
    assert {(row["failure"], row["http_status"], row["requests"]) for row in attempts} == {("transient", status, 4)}
    assert all("this is a mock" in row["message"] for row in attempts)
    assert proxy.asked() == before + 4 * PICTURES


def test_no_key_where_one_is_wanted_stops_the_stage(
    proxy: Proxy, dataset: Dataset, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY)
    said = refused(proxy, dataset, shard, config(proxy, "describes"))
    assert KEY in said and "401" in said


def test_a_wrong_key_stops_the_stage(
    proxy: Proxy, dataset: Dataset, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a database it cannot look a key up, and says 400."""
    monkeypatch.setenv(KEY, "sk-another-9876543210")
    said = refused(proxy, dataset, shard, config(proxy, "describes"))
    assert "No connected db" in said and "sk-another-9876543210" not in said


def test_an_unknown_model_is_said(proxy: Proxy, dataset: Dataset, shard: Shard) -> None:
    # Another concurrency is another line, on which nothing was answered yet.
    said = refused(proxy, dataset, shard, config(proxy, "no-such-model", concurrency=2))
    assert "caption.model = 'no-such-model'" in said and "Invalid model name" in said


def refused(proxy: Proxy, dataset: Dataset, shard: Shard, asked: CaptionConfig) -> str:
    """The one line that ends the stage; nothing is left behind that a corrected run would find."""
    before = proxy.asked()
    with pytest.raises(ConfigError) as caught:
        caption_shard(dataset, shard, asked, HASTY)
    said = str(caught.value)
    assert "\n" not in said and proxy.base_url in said and before < proxy.asked() <= before + PICTURES
    assert not dataset.store.list(f"{dataset.name}/{Step.CAPTIONED}/manifests")
    return said


def test_a_request_that_no_retry_mends_is_sent_once(proxy: Proxy, dataset: Dataset, shard: Shard) -> None:
    before = proxy.asked()
    done = caption_shard(dataset, shard, config(proxy, "narrow"), HASTY)
    assert dataset.manifest(done, Step.CAPTIONED).reasons == {"caption_permanent": PICTURES}
    attempts = dataset.read(done, Step.CAPTIONED, "attempts").to_pylist()
    assert {(row["http_status"], row["requests"]) for row in attempts} == {(400, 1)}
    assert proxy.asked() == before + PICTURES
