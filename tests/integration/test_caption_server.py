"""The stand-in captioner with the starter model, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx
import pytest
from PIL import Image, ImageDraw

from vlmdata.captioning import vocabulary
from vlmdata.captioning.openai import OpenAI
from vlmdata.captioning.pictures import for_sending
from vlmdata.captioning.provider import Answer, Fault
from vlmdata.captioning.server import running_server
from vlmdata.config import CaptionConfig

pytestmark = pytest.mark.integration

API = OpenAI()
CONFIG = CaptionConfig(model="starter")


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with running_server() as url:
        yield url


def drawing(number: int) -> bytes:
    image = Image.new("RGB", (120 + number, 100), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 10, 30 + 5 * number, 90), fill=(40 * number % 255, 200 - 9 * number, 30))
    draw.rectangle((60, 20 + number, 100, 60), fill=(10, 10 * number, 200))
    sink = BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def ask(base_url: str, data: bytes, model: str = "starter") -> Answer | Fault:
    config = CONFIG.model_copy(update={"model": model})
    body = API.body(for_sending(data, 512), config)
    reply = httpx.post(base_url + API.path, content=body, headers=API.headers(None), timeout=120)
    return API.parse(reply.status_code, reply.content)


def test_a_picture_gets_the_same_caption_alone_and_in_company(base_url: str) -> None:
    pictures = [drawing(number) for number in range(20)]
    with ThreadPoolExecutor(20) as threads:
        together = list(threads.map(lambda data: ask(base_url, data), pictures))
    alone = [ask(base_url, data) for data in pictures[:5]]
    assert together[:5] == alone
    known = {vocabulary.TEMPLATE.format(phrase) for phrase in vocabulary.phrases()}
    assert {end.text for end in together if isinstance(end, Answer)} <= known and len(together) == 20
    assert all(isinstance(end, Answer) and end.input_tokens and end.output_tokens for end in together)


def test_an_unknown_model_is_a_wrong_endpoint(base_url: str) -> None:
    end = ask(base_url, drawing(0), model="gpt-4o")
    assert isinstance(end, Fault) and (end.status, end.blame) == (404, "endpoint")


def test_the_shipped_embeddings_are_those_of_the_shipped_starter() -> None:
    """If not, the server computes them at each start: run `python -m vlmdata.captioning.vocabulary`."""
    from vlmdata.measure.encoder import load_encoder

    assert vocabulary.is_current(load_encoder("starter"))
