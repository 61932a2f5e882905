"""`vlmdata caption-server`: a small OpenAI-compatible endpoint on loopback, a stand-in for vLLM or a hosted API.

It answers with the phrase that fits the picture best, whatever it is asked.
It looks at pictures in data URLs only, fetches no address and keeps nothing.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from vlmdata.captioning.phrases import Batcher, PhraseCaptioner
from vlmdata.captioning.serving import running, serve_forever

if TYPE_CHECKING:
    from vlmdata.measure.encoder import Encoder

LARGEST_BODY = 32 << 20
LARGEST_PICTURE = 25_000_000
"""Pixels."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
# The picture counts as one word, for want of a tokenizer that sees it.
PICTURE_TOKENS = 1


class BadRequest(Exception):
    """Told to the client in OpenAI's shape."""

    def __init__(self, message: str, status: int = 400, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def make_app(captioner: PhraseCaptioner) -> Starlette:
    """The endpoint: `POST /v1/chat/completions`, `GET /v1/models`, `GET /health`.

    Usage counts words, not a real tokenizer's tokens.
    """
    batcher = Batcher(captioner)

    async def complete(request: Request) -> JSONResponse:
        asked = _parse(await _body(request))
        _check_model(asked, captioner.model)
        prompt, url = _prompt_and_picture(asked)
        prepared = await asyncio.to_thread(_prepared, captioner, url)
        return JSONResponse(_completion(captioner.model, prompt, url, await batcher.caption(prepared)))

    async def models(_: Request) -> JSONResponse:
        entry = {"id": captioner.model, "object": "model", "created": 0, "owned_by": "vlmdata"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    routes = [
        Route("/v1/chat/completions", complete, methods=["POST"]),
        Route("/v1/models", models),
        Route("/health", health),
    ]
    return Starlette(routes=routes, lifespan=_batching(batcher), exception_handlers={BadRequest: _refuse})


def serve(host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve the starter model until interrupted; there is no authentication, so keep it on loopback.

    Raises:
        ConfigError: the port is taken, or the host is not this machine's.
    """
    captioner = starter_captioner()
    captioner.warm_up()
    serve_forever(make_app(captioner), host, port)


@contextmanager
def running_server() -> Iterator[str]:
    """A server in a thread on a free loopback port; yields its base URL (`http://127.0.0.1:<port>/v1`).

    It is up at once; the first picture waits for the model.
    """
    with running(make_app(starter_captioner())) as address:
        yield f"{address}/v1"


def starter_captioner() -> PhraseCaptioner:
    """The captioner that needs no hub."""

    def load() -> Encoder:
        from vlmdata.measure.encoder import load_encoder

        return load_encoder("starter")

    return PhraseCaptioner("starter", load)


def _batching(batcher: Batcher) -> Any:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    return lifespan


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    status, code = (error.status, error.code) if isinstance(error, BadRequest) else (500, "server_error")
    shape = {"message": str(error), "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": shape}, status)


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > LARGEST_BODY:
                raise BadRequest(f"the request is longer than {LARGEST_BODY} bytes", 413, "request_too_large")
            parts.append(part)
    except ClientDisconnect:
        raise BadRequest("the request ended early") from None
    return b"".join(parts)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the request is not JSON") from None
    if not isinstance(asked, dict):
        raise BadRequest("the request is not a JSON object")
    if asked.get("stream"):
        raise BadRequest("stream: true is not supported")
    return asked


def _check_model(asked: dict[str, Any], served: str) -> None:
    model = asked.get("model")
    if model != served:
        raise BadRequest(f"there is no model {str(model)[:80]!r}; expected {served!r}", 404, "model_not_found")


def _prompt_and_picture(asked: dict[str, Any]) -> tuple[str, str]:
    """All text of all messages, and the last picture."""
    parts = [part for message in _list(asked.get("messages")) for part in _parts(message)]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    images = [part["image_url"] for part in parts if "image_url" in part]
    urls = [image.get("url") if isinstance(image, dict) else image for image in images]
    if not urls or not isinstance(urls[-1], str):
        raise BadRequest("messages: expected an image_url part with a data URL")
    return " ".join(texts), urls[-1]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _parts(message: Any) -> list[dict[str, Any]]:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for part in _list(content) if isinstance(part, dict)]


def _prepared(captioner: PhraseCaptioner, url: str) -> Any:
    from PIL import Image

    from vlmdata.measure.pixels import upright_rgb

    try:
        with Image.open(BytesIO(_data(url)), formats=FORMATS) as image:
            if image.width * image.height > LARGEST_PICTURE:
                raise BadRequest(f"image_url: more than {LARGEST_PICTURE} pixels", code="image_too_large")
            return captioner.prepare(upright_rgb(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        message = f"image_url: the picture does not decode; expected one of {', '.join(FORMATS)}"
        raise BadRequest(message, code="invalid_image") from None


def _data(url: str) -> bytes:
    """The bytes of a base64 data URL (RFC 2397); an address is refused, not fetched."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise BadRequest("image_url: expected a base64 data URL", code="invalid_image_url")
    return b64decode(data, validate=True)


def _completion(model: str, prompt: str, url: str, text: str) -> dict[str, Any]:
    asked, answered = len(prompt.split()) + PICTURE_TOKENS, len(text.split())
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {
        "id": f"chatcmpl-{sha256(f'{prompt}{url}'.encode()).hexdigest()[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [choice],
        "usage": {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered},
    }
