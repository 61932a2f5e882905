"""Faults that are planted in real captions and pictures, and what the detectors make of them.

The pictures are those of the sample that ships, less its own troubles; their
captions are people's, in seven languages. 5 % of the pictures get the captions
of another one, 3 % of the captions another language's label, 4 % of the pictures
a near-duplicate and 2 % some writing. `starter` and `starter-multilingual`
judge: they are weak, and cannot read.
"""

from __future__ import annotations

import importlib.util
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from benchmarks.builds import ROOT, Row
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.config_reading import parse_config
from vlmdata.demo import other_languages
from vlmdata.here import with_own_captions_here
from vlmdata.layout import Step
from vlmdata.models.calibration import auc
from vlmdata.quality.bands import judge_shard
from vlmdata.quality.scorers import measure_marks
from vlmdata.quality.scores import score_shard

SAMPLE = ROOT / "examples" / "stamps"
MISMATCHED, MISLABELLED, COPIED, WRITTEN_ON = 0.05, 0.03, 0.04, 0.02
SEED = 0
DROP = 0.05
"""Of the score on the mirrored picture, from which a caption is marked."""
TEXT_AREA = 0.01
"""Share of the picture, from which it counts as written on."""

Entry = dict[str, Any]


@dataclass
class Planted:
    """What is wrong on purpose: files, or (file, text) of captions."""

    mismatched: set[tuple[str, str]] = field(default_factory=set)
    mislabelled: set[tuple[str, str]] = field(default_factory=set)
    copies: set[str] = field(default_factory=set)
    written_on: set[str] = field(default_factory=set)


def run() -> list[Row]:
    """(name, precision or recall, "", remark) of each detector."""
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(Path(folder), random.Random(SEED))
        config = _config(Path(folder))
        dataset, shards = _judged(config)
        return _rows(dataset, shards, planted, config)


def plant(folder: Path, rng: random.Random) -> Planted:
    """Write `folder`/pictures and `folder`/captions.jsonl, and tell what is wrong with them."""
    entries = _sound_entries()
    planted = Planted()
    chosen = rng.sample(range(len(entries)), len(entries))
    cuts = [round(share * len(entries)) for share in (MISMATCHED, COPIED, WRITTEN_ON)]
    mismatched, copied, written = (chosen[sum(cuts[:place]) : sum(cuts[: place + 1])] for place in range(len(cuts)))
    for number, entry in enumerate(entries):
        target = folder / "pictures" / entry["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((SAMPLE / "pictures" / entry["file"]).read_bytes())
        if number in set(written):
            planted.written_on.add(_write_on(folder, entry))
        if number in set(copied):
            planted.copies.update(_copy(folder, entry, rng))
    _mismatch(entries, mismatched, planted)
    _mislabel(entries, planted, rng)
    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return planted


def _sound_entries() -> list[Entry]:
    """Rows of the sample that nothing was planted in when it was made."""
    troubles = json.loads((SAMPLE / "troubles.json").read_text(encoding="utf-8"))
    troubled = {trouble[name] for trouble in troubles for name in ("file", "of") if trouble.get(name)}
    lines = (SAMPLE / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [entry for entry in entries if entry["file"] not in troubled and entry.get("captions")]


def _mismatch(entries: list[Entry], rows: Sequence[int], planted: Planted) -> None:
    """Each of these pictures gets the captions of the next one."""
    captions = [entries[row]["captions"] for row in rows]
    for row, others in zip(rows, [*captions[1:], captions[0]], strict=True):
        entries[row]["captions"] = others
        planted.mismatched.update((entries[row]["file"], caption["text"]) for caption in others)


def _mislabel(entries: list[Entry], planted: Planted, rng: random.Random) -> None:
    every = [(entry, number) for entry in entries for number in range(len(entry["captions"]))]
    languages = sorted({caption["lang"] for entry in entries for caption in entry["captions"]})
    for entry, number in rng.sample(every, round(MISLABELLED * len(every))):
        caption = entry["captions"][number]
        wrong = rng.choice([tag for tag in languages if tag != caption["lang"]])
        entry["captions"][number] = {**caption, "lang": wrong}
        planted.mislabelled.add((entry["file"], caption["text"]))


def _copy(folder: Path, entry: Entry, rng: random.Random) -> set[str]:
    """A smaller, darker JPEG of a picture, without captions; of the two the larger one stays."""
    with Image.open(folder / "pictures" / entry["file"]) as opened:
        flat = Image.new("RGB", opened.size, "white")
        flat.paste(opened.convert("RGBA"), mask=opened.convert("RGBA").getchannel("A"))
    side = rng.uniform(0.8, 0.95)
    small = flat.resize((max(224, int(flat.width * side)), max(224, int(flat.height * side))))
    name = f"{Path(entry['file']).with_suffix('')}-copy.jpg"
    ImageEnhance.Brightness(small).enhance(rng.uniform(0.85, 0.97)).save(folder / "pictures" / name, quality=70)
    return {entry["file"], name}


def _write_on(folder: Path, entry: Entry) -> str:
    """The caption in large letters across the picture, which becomes a PNG."""
    path = folder / "pictures" / entry["file"]
    with Image.open(path) as opened:
        picture = Image.new("RGB", opened.size, "white")
        picture.paste(opened.convert("RGBA"), mask=opened.convert("RGBA").getchannel("A"))
    path.unlink()
    entry["file"] = str(Path(entry["file"]).with_suffix(".written.png"))
    text = entry["captions"][0]["text"][:40]
    font = ImageFont.load_default(size=max(18, picture.width // 16))
    draw = ImageDraw.Draw(picture)
    draw.rectangle(draw.textbbox((8, 8), text, font=font), fill="white")
    draw.text((8, 8), text, fill="black", font=font)
    picture.save(folder / "pictures" / entry["file"])
    return str(entry["file"])


def _config(folder: Path) -> BuildConfig:
    quality: Entry = {"model": "starter", "pretrained": None, "printed_text_drop": DROP, "languages": other_languages()}
    if importlib.util.find_spec("rapidocr") and importlib.util.find_spec("onnxruntime"):
        quality["scorers"] = {"text": {}}
    source = {"kind": "folder", "path": str(folder / "pictures"), "captions": str(folder / "captions.jsonl")}
    raw = {"dataset": "faults", "store": str(folder / "store"), "source": source, "quality": quality}
    return parse_config(raw)


def _judged(config: BuildConfig) -> tuple[Dataset, list[Shard]]:
    dataset = Dataset(config.store, config.dataset)
    captioned = with_own_captions_here(dataset, config)
    scored = [score_shard(dataset, shard, config.quality) for shard in captioned]
    return dataset, [judge_shard(dataset, shard, config.quality) for shard in scored]


def _rows(dataset: Dataset, shards: Sequence[Shard], planted: Planted, config: BuildConfig) -> list[Row]:
    keys = _all(dataset, shards, Step.RAW, "samples", ["id", "key"])
    names = dict(zip(keys["id"].to_pylist(), keys["key"].to_pylist(), strict=True))
    duplicates = _all(dataset, shards, Step.FILTERED, "rejects", ["key", "code"])
    copies = set(duplicates.filter(pc.equal(duplicates["code"], "near_duplicate"))["key"].to_pylist())
    lost = _all(dataset, shards, Step.CHECKED, "caption_rejects", ["id", "text", "code"])
    told = {code: _captions(lost, names, code) for code in ("language_contradicted", "misaligned", "borderline")}
    scores = _scores(dataset, shards)
    judged = [(names[i], text) for i, text in zip(scores["id"].to_pylist(), scores["text"].to_pylist(), strict=True)]
    wrong = np.array([one in planted.mismatched for one in judged])
    mismatched = planted.mismatched & set(judged)
    cosines = scores["score"].to_numpy()
    apart = auc(cosines[~wrong], cosines[wrong])
    rows = [
        *_both("near-duplicates (4 %)", copies, _pairs_found(copies, planted.copies)),
        *_both("wrong language labels (3 %)", told["language_contradicted"], planted.mislabelled),
        ("mismatched captions (5 %): AUC", apart, "", f"{len(mismatched)} of {len(judged):,} captions; 0.5 is chance"),
        *_both("mismatched captions (5 %), rejected", told["misaligned"], mismatched),
        *_both("mismatched captions (5 %), rejected or held", told["misaligned"] | told["borderline"], mismatched),
        *_both("writing in the picture (2 %), mirrored score", _marked(dataset, shards, names), planted.written_on),
    ]
    if config.quality.scorers:
        written = _written(dataset, shards, names, config)
        rows += _both("writing in the picture (2 %), text scorer", written, planted.written_on - copies)
    return rows


def _scores(dataset: Dataset, shards: Sequence[Shard]) -> pa.Table:
    """The captions that a model judged, with their scores."""
    captions = _all(dataset, shards, Step.CAPTIONED, "captions", ["id", "caption_id", "text"])
    scores = _all(dataset, shards, Step.SCORES, "scores", ["id", "caption_id", "score"])
    return captions.join(scores.filter(pc.is_valid(scores["score"])), ["id", "caption_id"], join_type="inner")


def _captions(lost: pa.Table, names: dict[str, str], code: str) -> set[tuple[str, str]]:
    mine = lost.filter(pc.equal(lost["code"], code))
    return {(names[i], text) for i, text in zip(mine["id"].to_pylist(), mine["text"].to_pylist(), strict=True)}


def _pairs_found(found: set[str], planted: set[str]) -> set[str]:
    """Of each planted pair either picture may be the one that goes: the one that went, else the copy."""
    copies = {name for name in planted if name.endswith("-copy.jpg")}
    stems = {name.removesuffix("-copy.jpg"): name for name in copies}
    twins = {str(Path(name).with_suffix("")): name for name in planted - copies}
    return {twins[stem] if twins[stem] in found else copy for stem, copy in stems.items()}


def _marked(dataset: Dataset, shards: Sequence[Shard], names: dict[str, str]) -> set[str]:
    rows = _all(dataset, shards, Step.SCORES, "scores", ["id", "score", "mirrored_score"])
    marked = pc.greater(pc.subtract(rows["score"], rows["mirrored_score"]), DROP)
    return {names[one] for one in rows.filter(pc.fill_null(marked, False))["id"].to_pylist()}


def _written(dataset: Dataset, shards: Sequence[Shard], names: dict[str, str], config: BuildConfig) -> set[str]:
    marks = [measure_marks(dataset, shard, config.quality)["text_area"].tables["marks"] for shard in shards]
    rows = pa.concat_tables([dataset.table(table) for table in marks])
    found = rows.filter(pc.fill_null(pc.greater(rows["value"], TEXT_AREA), False))
    return {names[one] for one in found["id"].to_pylist()}


def _all(dataset: Dataset, shards: Sequence[Shard], step: Step, table: str, names: list[str]) -> pa.Table:
    return pa.concat_tables([dataset.read(shard, step, table, names).select(names) for shard in shards])


def _both(name: str, found: set[Any], planted: set[Any]) -> list[Row]:
    right = len(found & planted)
    told = f"{right} of {len(planted)} planted are among {len(found)} found"
    return [
        (f"{name}: precision", right / len(found) if found else 0.0, "", told),
        (f"{name}: recall", right / len(planted) if planted else 0.0, "", ""),
    ]
