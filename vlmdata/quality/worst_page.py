"""The worst pairs as a page that people look at: thumbnail, caption, ranks; one file, no network, all text escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import pyarrow.compute as pc
from PIL import Image

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.layout import Step
from vlmdata.measure.pixels import upright_rgb
from vlmdata.quality.retrieval import Retrieval

_SIDE = 160
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }
ul { list-style: none; padding: 0; }
img { max-width: 100%; height: 8rem; object-fit: contain; display: block; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
small { opacity: .75; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; }
"""


def worst_page(dataset: Dataset, shards: Sequence[Shard], found: Retrieval) -> bytes:
    """A whole HTML page about a retrieval check."""
    pictures = _thumbnails(dataset, shards, found)
    items = "".join(_item(row, pictures.get(row["id"])) for row in found.worst.to_pylist())
    body = f"<h1>{escape(found.sentence)}</h1>{_recalls(found)}{_groups(found)}<h2>The worst pairs</h2><ul>{items}</ul>"
    wide = "<meta charset=utf-8><meta name=viewport content='width=device-width'>"
    head = f"{wide}<title>Retrieval</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{body}</body></html>".encode()


def _item(row: dict[str, Any], picture: str | None) -> str:
    text = escape(row["text"])
    shown = f'<img src="{picture}" alt="{text}">' if picture else "<p>(no thumbnail)</p>"
    ranks = f"caption found as no. {row['to_text']}, image as no. {row['to_image']}, score {row['score']:.3f}"
    return f"<li>{shown}<p>{text}</p><small>{ranks}<br>{escape(row['id'])}</small></li>"


def _recalls(found: Retrieval) -> str:
    rows = [
        (f"{what}, {way.replace('_', ' ')}", recall)
        for what, both in (("would-be exports", found.exports), ("all scored samples", found.scored))
        for way, recall in both.items()
    ]
    lines = "".join(
        f"<tr><td>{name}<td>{one.n}"
        + "".join(
            f"<td>{share:.1%} ({low:.1%} to {high:.1%})"
            for share, (low, high) in zip((one.r1, one.r5, one.r10), one.intervals, strict=True)
        )
        for name, one in rows
    )
    return f"<table><tr><th>of<th>images<th>R@1 (95 % interval)<th>R@5<th>R@10{lines}</table>"


def _groups(found: Retrieval) -> str:
    parts = []
    for name, rows in found.groups.items():
        lines = "".join(
            f"<tr><td>{escape(str(row['name']))}<td>{row['images']}<td>{row['miss_rate']:.1%}" for row in rows[:10]
        )
        parts.append(f"<h2>By {name}, the worst first</h2><table><tr><th>{name}<th>images<th>missed{lines}</table>")
    return "".join(parts)


def _thumbnails(dataset: Dataset, shards: Sequence[Shard], found: Retrieval) -> dict[str, str]:
    made: dict[str, str] = {}
    for shard in shards:
        wanted = found.worst.filter(pc.equal(found.worst["shard"], shard.name))["id"]
        if len(wanted):
            images = dataset.read(shard, Step.RAW, "images")
            images = images.filter(pc.is_in(images["id"], value_set=wanted))
            made.update(_small(images.to_pylist()))
    return made


def _small(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for row in rows:
        with Image.open(io.BytesIO(row["image"])) as image:
            small = upright_rgb(image)
            small.thumbnail((_SIDE, _SIDE))
            sink = io.BytesIO()
            small.save(sink, "JPEG", quality=80)
        yield row["id"], f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"
