"""LLaVA's conversations, which are ShareGPT's with an image, and a folder of pictures.

`shards/<shard>.json` is a list of records, one a caption; `images/<shard>/`
holds their pictures; `llava.json` has all records in one list. A record also
tells its picture's sha256, so that MANIFEST.json need not name each picture.

What the human asks is one of a few wordings, chosen by the record's id, in
English; for a caption in another language that language is named.
https://github.com/haotian-liu/LLaVA/blob/main/docs/Finetune_Custom_Data.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import pyarrow as pa

from vlmdata.captioning.prompts.names import english_name
from vlmdata.errors import BrokenInvariant
from vlmdata.export.format import FOUND, File, Found, Read
from vlmdata.export.pixels import Picture

INDEX = "llava.json"

ASKED = (
    "Describe the image.",
    "What is shown in this image?",
    "Write a caption for this picture.",
    "Describe what you see in the picture.",
    "What does this picture show?",
    "Give a short description of the image.",
    "Tell me what is in this picture.",
    "Summarize the content of the image.",
)
"""What a human may ask; a new one changes which one each record has."""
_IMAGE = re.compile(r"images/[0-9]+/([0-9a-f]{32})\.(?:jpg|png|webp)")
_PLACEHOLDER = re.compile(r"<(?=(?:image|video|audio)>)")
"""A reader puts a picture wherever the text says so, and counts: in a stranger's caption it may not say so."""
_OPEN, _NEXT, _CLOSE = b"[\n", b",\n", b"\n]\n"


def write(rows: pa.Table, pictures: Sequence[Picture], shard: str) -> list[File]:
    """The pictures of n samples, and their conversations.

    Raises:
        BrokenInvariant: a sample has no caption, so there is nothing to answer; stage 03 lets none through.
    """
    files, records = [], []
    for row, picture in zip(rows.to_pylist(), pictures, strict=True):
        path = f"images/{shard}/{row['id']}.{picture.extension}"
        files.append(File(path, picture.data))
        if not row["captions"]:
            raise BrokenInvariant(f"export: sample {row['id']} has no caption")
        records += [_record(row["id"], number, path, said, picture) for number, said in enumerate(row["captions"])]
    lines = [json.dumps(record, ensure_ascii=False).encode() for record in records]
    return [*files, File(f"shards/{shard}.json", _OPEN + _NEXT.join(lines) + _CLOSE)]


def read_back(path: str, read: Read) -> Found:
    """What a shard holds; the file is the picture's own."""
    records: dict[str, int] = {}
    for record in json.loads(read(path).to_pybytes()):
        records[record["image"]] = records.get(record["image"], 0) + 1
    rows = [{"id": _sample(at), "captions": count, "file": at, "offset": 0} for at, count in records.items()]
    return Found(pa.Table.from_pylist(rows, schema=FOUND), map(read, records))


def beside(data: pa.Buffer) -> dict[str, str]:
    """The pictures of a shard, with the sha256 of each."""
    records = json.loads(data.to_pybytes())
    return {record["image"]: record["sha256"] for record in records if _sample(record["image"])}


def index(files: Sequence[Mapping[str, Any]], read: Read) -> Iterator[bytes]:
    """All records in one list, one shard in memory at a time."""
    before = _OPEN
    for file in files:
        yield before + read(file["path"]).to_pybytes()[len(_OPEN) : -len(_CLOSE)]
        before = _NEXT
    yield _CLOSE if files else b"[]\n"


def _record(sample: str, number: int, path: str, caption: dict[str, Any], picture: Picture) -> dict[str, Any]:
    name = f"{sample}-{number}"
    return {
        "id": name,
        "image": path,
        "conversations": [
            {"from": "human", "value": f"<image>\n{_question(name, caption['lang'])}"},
            {"from": "gpt", "value": _PLACEHOLDER.sub("< ", caption["text"])},
        ],
        "sha256": picture.sha256,
    }


def _question(name: str, lang: str | None) -> str:
    asked = ASKED[sha256(name.encode()).digest()[0] % len(ASKED)]
    language = english_name(lang) if lang else "English"
    return asked if language.endswith("English") else f"{asked} Answer in {language}."


def _sample(path: str) -> str:
    """The id of the sample whose picture lies there."""
    known = _IMAGE.fullmatch(path)
    if not known:
        raise ValueError(f"{path!r} is no picture of ours")
    return known[1]
