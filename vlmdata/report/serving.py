"""`vlmdata report --serve`: the same page over all samples of a run, with thumbnails made as they are looked at.

There is no authentication, so it listens on loopback unless it is told
otherwise; it answers to the names that it listens on alone, so that a page
from elsewhere cannot read it by a name of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vlmdata.captioning.serving import serve_forever
from vlmdata.checkpoint import Dataset
from vlmdata.layout import Stage
from vlmdata.report.ask import asked, is_id, search
from vlmdata.report.draw import galleries, shown
from vlmdata.report.ledger import Ledger, Row, ledger_of
from vlmdata.report.make import CARDS, has_thumbnail, page_data, require_readable
from vlmdata.report.overview import overview
from vlmdata.report.page import SERVED, about, page
from vlmdata.report.pictures import MIME, stored_pictures, thumbnail
from vlmdata.report.records import records
from vlmdata.report.training import Trained
from vlmdata.runs import Run

_PAGE = 60
"""Samples in one answer."""
_THUMBNAILS = 2_000
"""Kept in memory, some 10 MB."""
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


def serve(run: Run, host: str, port: int, training: Trained | None = None) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: nothing to plot with is installed, the run has read nothing yet, or the port cannot be used.
        StoreError: a checkpoint is gone or damaged.
    """
    require_readable(run)
    with ledger_of(run) as ledger:
        serve_forever(make_app(run, ledger, host, training), host, port, "report")


def make_app(run: Run, ledger: Ledger, host: str = "127.0.0.1", training: Trained | None = None) -> Starlette:
    """The page at `/`, `GET /api/samples`, `/api/sample/{id}` and `/thumb/{id}`."""
    small, whole = _thumbnails(run, ledger), _page(run, ledger, training)

    async def index(_: Request) -> Response:
        return Response(whole, media_type="text/html", headers=_HEADERS)

    async def samples(request: Request) -> Response:
        found = await asyncio.to_thread(_found, ledger, dict(request.query_params))
        return _json(found)

    async def sample(request: Request) -> Response:
        id_ = request.path_params["id"]
        rows = await asyncio.to_thread(_records, ledger, [id_]) if is_id(id_) else []
        return _json(rows[0]) if rows else Response(status_code=404, headers=_HEADERS)

    async def thumb(request: Request) -> Response:
        id_ = request.path_params["id"]
        data = await asyncio.to_thread(small, id_) if is_id(id_) else None
        return (
            Response(data, media_type=MIME, headers=_HEADERS) if data else Response(status_code=404, headers=_HEADERS)
        )

    async def nothing(_: Request) -> Response:
        return Response(status_code=204, headers=_HEADERS)

    routes = [
        Route("/", index),
        Route("/favicon.ico", nothing),
        Route("/api/samples", samples),
        Route("/api/sample/{id}", sample),
        Route("/thumb/{id}", thumb),
    ]
    names = ["*"] if host in {"0.0.0.0", "::"} else ["127.0.0.1", "localhost", "[::1]", host]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=names)])


def _page(run: Run, ledger: Ledger, training: Trained | None) -> bytes:
    seen = overview(run)
    drawn = galleries(ledger, CARDS, seen.unfound)
    told = {**page_data(run.dataset, ledger, seen, drawn), "served": True, "samples": _records(ledger, shown(drawn))}
    return page(about(seen, training), told, SERVED)


def _records(ledger: Ledger, ids: list[str]) -> list[Row]:
    return [{**row, "thumb": has_thumbnail(row)} for row in records(ledger, ids)]


def _found(ledger: Ledger, query: Mapping[str, str]) -> dict[str, Any]:
    total, ids = search(ledger, asked(query), _PAGE)
    return {"total": total, "samples": _records(ledger, ids)}


def _thumbnails(run: Run, ledger: Ledger) -> Any:
    raw = run.stage(Stage.RAW)
    shards = {shard.name: shard for shard in raw.shards} if raw else {}
    dataset: Dataset = run.dataset

    @lru_cache(maxsize=_THUMBNAILS)
    def small(id_: str) -> bytes | None:
        found = records(ledger, [id_])
        if not found or not has_thumbnail(found[0]):
            return None
        return next((thumbnail(data) for _, data in stored_pictures(dataset, shards[found[0]["shard"]], [id_])), None)

    return small


def _json(content: Any) -> Response:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    return Response(text, media_type="application/json", headers=_HEADERS)
