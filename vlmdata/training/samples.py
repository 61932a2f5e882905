"""Every pair of a set, found once: where its picture lies, its captions, its split. A file that all readers map."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.config import WebdatasetSource
from vlmdata.errors import SourceError
from vlmdata.ingest.webdataset import list_rows
from vlmdata.store import LocalStore
from vlmdata.training.config import TrainConfig
from vlmdata.training.export_files import ExportFiles, Tar, export_files, refuse_count, verify
from vlmdata.training.order import Rows
from vlmdata.training.tars import Tars

TRAIN, VALIDATION = "train", "validation"
INDEX = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("tar", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("languages", pa.list_(pa.string()), nullable=False),
        pa.field("weights", pa.list_(pa.float32()), nullable=False),
        pa.field(
            "sided", pa.bool_(), nullable=False, metadata={"note": "a caption says left or right: never mirrored"}
        ),
        pa.field("split", pa.string(), nullable=False),
    ]
)
# In the languages that most captions are in; words alone, so that "leftovers" are none.
_SIDES = (
    r"\b(left|right|lefthand|righthand|leftmost|rightmost|links|linke[nrms]?|rechts|rechte[nrms]?|gauche|droite"
    r"|izquierd[ao]|derech[ao]|sinistr[ao]|destr[ao]|esquerd[ao]|direit[ao]|слева|справа|лев(?:ый|ая|ой|ую|ом)"
    r"|прав(?:ый|ая|ой|ую|ом))\b|[左右]|왼쪽|오른쪽"
)


@dataclass(frozen=True)
class Samples:
    """A set, opened.

    Attributes:
        index: the file of `INDEX`, mapped; a row a pair.
        tars: their bytes, by the number in `tar`.
        digest: names what the set holds.
        manifest: the export's MANIFEST.json; None: it is not ours.
        left_out: samples without a pair to learn from, by reason.
        held_out: whether validation was held out by a hash, for want of splits.
    """

    index: Path
    tars: Tars
    digest: str
    manifest: dict[str, Any] | None
    left_out: dict[str, int]
    held_out: bool

    @cached_property
    def table(self) -> pa.Table:
        """The rows, mapped."""
        with pa.memory_map(str(self.index)) as file:
            return pa.ipc.open_file(file).read_all()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "table"}

    def rows(self, split: str) -> Rows:
        """Numbers of a split's rows."""
        mine = pc.equal(self.table["split"], split)
        found: Rows = np.flatnonzero(mine.to_numpy()).astype(np.int64)
        return found

    def shards(self, split: str) -> list[Rows]:
        """The same, by tar."""
        rows = self.rows(split)
        of = self.table["tar"].to_numpy()[rows]
        return [part for part in np.split(rows, np.flatnonzero(np.diff(of)) + 1) if len(part)]

    @property
    def sided(self) -> int:
        """Pairs whose captions say left or right."""
        return int(pc.sum(self.table["sided"]).as_py() or 0)


def open_samples(config: TrainConfig, out: Path) -> Samples:
    """Verify and index a set; a set that was indexed here before, and has not changed, is not read again.

    Raises:
        SourceError: it fails verification, cannot be read, or a split is empty.
    """
    found = export_files(config.data)
    # Where there are splits, none of them is anybody else's to train on.
    held_out = all(tar.split is None for tar in found.tars)
    share = config.validation_share if held_out else None
    terms = json.dumps([found.digest, config.caption_weights, share, list(found.bytes.versions)])
    name = f"index-{sha256(terms.encode()).hexdigest()[:16]}"
    index, story = out / f"{name}.arrow", out / f"{name}.json"
    if not story.is_file():
        left_out = _write(index, found, config, held_out)
        LocalStore(str(out), "out").replace(story.name, json.dumps(left_out).encode())
    samples = Samples(index, found.bytes, found.digest, found.manifest, json.loads(story.read_bytes()), held_out)
    _refuse_empty(samples, config)
    return samples


def _write(index: Path, found: ExportFiles, config: TrainConfig, held_out: bool) -> dict[str, int]:
    left_out = {"missing": 0, "no_caption": 0, "other_split": 0}
    part = index.with_suffix(".part")
    with pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, INDEX) as writer:
        for number, tar in enumerate(found.tars):
            listed = _listed(tar, number, found, index.parent)
            if not held_out and tar.split not in (TRAIN, VALIDATION):
                left_out["other_split"] += listed.num_rows
                continue
            rows = list(_pairs(listed, tar, number, config, held_out, left_out))
            writer.write_table(pa.Table.from_pylist(rows, schema=INDEX))
    part.replace(index)
    return {reason: count for reason, count in left_out.items() if count}


def _listed(tar: Tar, number: int, found: ExportFiles, out: Path) -> pa.Table:
    """The samples of a tar that is as its manifest says."""
    where = found.bytes.where(number)
    with found.bytes.whole(number, out / "verified") as path:
        verify(tar, path, where)
        try:
            listed = list_rows(WebdatasetSource(path=str(path)))
        except SourceError as error:
            raise SourceError(f"data: {where}: {str(error).partition(': ')[2] or error}") from error
    refuse_count(tar, where, listed.num_rows)
    return listed


def _pairs(
    listed: pa.Table, tar: Tar, number: int, config: TrainConfig, held_out: bool, left_out: dict[str, int]
) -> Iterator[dict[str, Any]]:
    columns = ("key", "offset", "size", "missing", "captions")
    for key, offset, size, missing, captions in zip(*(listed[name].to_pylist() for name in columns), strict=True):
        if missing:
            left_out["missing"] += 1
            continue
        drawable = _drawable(captions, config.caption_weights)
        if not drawable:
            left_out["no_caption"] += 1
            continue
        split = split_of(key, config.validation_share) if held_out else tar.split
        texts, languages, weights = zip(*drawable, strict=True)
        yield {
            "id": key,
            "tar": number,
            "offset": offset,
            "size": size,
            "captions": texts,
            "languages": languages,
            "weights": weights,
            "sided": says_a_side([caption["text"] or "" for caption in captions]),
            "split": split,
        }


def _drawable(captions: Sequence[dict[str, Any]], by_language: dict[str, float]) -> list[tuple[str, str | None, float]]:
    """The captions that may be drawn, each text, language and weight: some text, and a weight above 0."""
    found = []
    for caption in captions or ():
        weight = caption_weight(caption["lang"], by_language)
        if weight > 0 and (caption["text"] or "").strip():
            found.append((caption["text"], caption["lang"], weight))
    return found


def caption_weight(language: str | None, by_language: dict[str, float]) -> float:
    """How often a caption of a language (BCP 47) is drawn: by its tag, its primary tag, or `*`; empty: 1."""
    if not by_language:
        return 1.0
    tag = language or "*"
    return next((by_language[one] for one in (tag, tag.split("-")[0], "*") if one in by_language), 0.0)


def says_a_side(captions: Sequence[str]) -> bool:
    """Whether a caption says left or right, so that its mirrored picture would be another one."""
    return any(re.search(_SIDES, caption, re.IGNORECASE) for caption in captions)


def split_of(key: str, share: float) -> str:
    """A sample's split by its id alone, whatever else the set holds."""
    drawn = int.from_bytes(sha256(key.encode()).digest()[:8], "big") / 2**64
    return VALIDATION if drawn < share else TRAIN


def _refuse_empty(samples: Samples, config: TrainConfig) -> None:
    if not len(samples.table) and samples.left_out.get("no_caption"):
        change = "caption_weights that fit its languages" if config.caption_weights else "a set with captions"
        raise SourceError(f"data: no picture of {config.data} has a caption to learn from; give {change}")
    for split in (TRAIN, VALIDATION):
        if not len(samples.rows(split)):
            size = "smaller" if split == TRAIN else "larger"
            change = (
                f"more data, or a {size} validation_share"
                if samples.held_out
                else f"an export with a split {split!r} that has some (export.splits)"
            )
            raise SourceError(f"data: no pair in the {split} split of {config.data}; give {change}")
