"""The stand-in endpoint, with an encoder whose space is colour."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from vlmdata.captioning import server
from vlmdata.captioning.phrases import LARGEST_BATCH, Batcher, PhraseCaptioner
from vlmdata.captioning.vocabulary import TEMPLATE, phrases


class ColourEncoder:
    """Three dimensions; each text lies in a direction that follows from its length."""

    weights = "colours"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def prepare(self, image: Image.Image) -> Any:
        return np.asarray(image.resize((1, 1)), np.float32).transpose(2, 0, 1) / 255

    def images(self, prepared: Any) -> Any:
        self.batches.append(len(prepared))
        return prepared.reshape(len(prepared), 3)

    def texts(self, texts: list[str]) -> Any:
        places = np.array([[len(text) % 7, len(text) % 5, len(text) % 3] for text in texts], np.float32) + 1
        return places / np.linalg.norm(places, axis=1, keepdims=True)


def data_url(colour: tuple[int, int, int], format_: str = "PNG") -> str:
    sink = BytesIO()
    Image.new("RGB", (8, 8), colour).save(sink, format_)
    return f"data:image/{format_.lower()};base64,{b64encode(sink.getvalue()).decode()}"


def request(url: Any, **changes: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "Describe this."}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": "starter", "messages": [{"role": "user", "content": content}], **changes}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    encoder: Any = ColourEncoder()
    with TestClient(server.make_app(PhraseCaptioner("starter", lambda: encoder))) as running:
        yield running


def test_an_answer_has_the_shape_of_openais(client: TestClient) -> None:
    reply = client.post("/v1/chat/completions", json=request(data_url((255, 0, 0)))).json()
    choice = reply["choices"][0]
    assert choice["finish_reason"] == "stop" and choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] in {TEMPLATE.format(phrase) for phrase in phrases()}
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 3
    assert (reply["object"], reply["model"]) == ("chat.completion", "starter")


def test_models_and_health(client: TestClient) -> None:
    assert [entry["id"] for entry in client.get("/v1/models").json()["data"]] == ["starter"]
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (request(data_url((0, 0, 0)), model="gpt"), 404, "model_not_found"),
        (request(data_url((0, 0, 0)), model=None), 404, "model_not_found"),
        (request("https://example.com/a.png"), 400, "invalid_image_url"),
        (request("file:///etc/passwd"), 400, "invalid_image_url"),
        (request("data:image/png;base64,AAAA"), 400, "invalid_image"),
        (request("data:image/png;base64,@"), 400, "invalid_image"),
        (request(data_url((0, 0, 0), "BMP")), 400, "invalid_image"),
        (request(None), 400, "invalid_request"),
        (request(data_url((0, 0, 0)), messages="no"), 400, "invalid_request"),
        (request(data_url((0, 0, 0)), messages=[{"content": "no picture"}]), 400, "invalid_request"),
        (request(data_url((0, 0, 0)), stream=True), 400, "invalid_request"),
        ([], 400, "invalid_request"),
    ],
)
def test_bad_requests_are_told_in_openais_shape(client: TestClient, body: Any, status: int, code: str) -> None:
    reply = client.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_limits(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LARGEST_PICTURE", 63)
    reply = client.post("/v1/chat/completions", json=request(data_url((0, 0, 0))))
    assert reply.json()["error"]["code"] == "image_too_large"
    monkeypatch.setattr(server, "LARGEST_BODY", 10)
    assert client.post("/v1/chat/completions", content=b"x" * 11).status_code == 413


def test_requests_that_come_together_share_batches_and_keep_their_answers() -> None:
    encoder: Any = ColourEncoder()
    captioner = PhraseCaptioner("starter", lambda: encoder)
    colours = [(n % 9 + 1, n % 4, n % 6) for n in range(3 * LARGEST_BATCH)]
    pictures = [np.array(colour, np.float32).reshape(3, 1, 1) for colour in colours]
    alone = [captioner.captions([one])[0] for one in pictures]
    encoder.batches.clear()

    async def together() -> list[str]:
        batcher = Batcher(captioner)
        runner = asyncio.create_task(batcher.run())
        texts = await asyncio.gather(*(batcher.caption(one) for one in pictures))
        runner.cancel()
        return texts

    assert asyncio.run(together()) == alone and len(set(alone)) > 1
    assert sum(encoder.batches) == len(pictures) and max(encoder.batches) == LARGEST_BATCH


def test_what_the_encoder_raises_reaches_those_who_wait_and_no_others() -> None:
    encoder: Any = ColourEncoder()
    captioner = PhraseCaptioner("starter", lambda: encoder)
    good, bad = np.ones((3, 1, 1), np.float32), np.ones((3, 2, 2), np.float32)

    async def in_turn() -> str:
        batcher = Batcher(captioner)
        runner = asyncio.create_task(batcher.run())
        with pytest.raises(ValueError):
            await batcher.caption(bad)
        text = await batcher.caption(good)
        runner.cancel()
        return text

    assert asyncio.run(in_turn()).startswith("A picture of ")
