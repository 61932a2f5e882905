"""Two nights of a set in which everything occurs that a report shows: real stages, and scores that are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.faults import FaultServer, caption, colour
from tests.unit.conftest import encode, make_tiny, picture, png
from tests.unit.growing import Growing
from vlmdata.checkpoint import Dataset
from vlmdata.health.measure import measure_health
from vlmdata.health.saved import save
from vlmdata.layout import Stage
from vlmdata.quality.pairs import measure_pairs
from vlmdata.runs import COMPLETED, report

HOSTILE_NAME = "<img src=x onerror=hacked=1>.png"
HOSTILE_CAPTION = "</script><script>window.hacked=1</script> & <b>bold</b> \u2028 {{data}}"
ENGLISH, FRENCH = 14, 10
REFUSED, BROKEN, TOLD = 1, 2, 3
"""What the captioner knows pictures by that have no caption."""


@dataclass
class Night:
    """What comes to the set in one night, and how it scores."""

    files: dict[str, bytes]
    captions: dict[str, list[Any]]
    scores: dict[str, float]


def first() -> Night:
    """English alone; among them what cannot be used."""
    files = {f"shop/en-{n:02}.png": png(n) for n in range(ENGLISH)}
    said = {name: f"A red bus, number {n}." for n, name in enumerate(files)}
    scores = {text: 0.30 + n / 100 for n, text in enumerate(said.values())}
    files |= {
        HOSTILE_NAME: png(30),
        "shop/tiny.png": png(31, 20, 20),
        "shop/cut.png": png(32)[:-40],
        "shop/empty.png": b"",
        "shop/again.png": encode(picture(0, 56, 42)),
    }
    said |= {name: f"The picture {name.removeprefix('shop/')}" for name in files if name not in said}
    said[HOSTILE_NAME] = HOSTILE_CAPTION
    return Night(files, {name: [{"text": text, "lang": "en"}] for name, text in said.items()}, scores)


def second() -> Night:
    """French comes; some is held, and the captioner fails."""
    french = {f"press/fr-{n:02}.png": f"Un bus rouge, numéro {n}." for n in range(FRENCH)}
    scores = {text: 0.25 if n < 3 else 0.29 + n / 500 for n, text in enumerate(french.values())}
    english = {"shop/held-0.png": "Perhaps a bus.", "shop/held-1.png": "A bus, it may be.", "press/wrong.png": "A cat."}
    scores |= {"Perhaps a bus.": 0.24, "A bus, it may be.": 0.26, "A cat.": 0.1}
    files = {name: png(100 + n) for n, name in enumerate([*french, *english])}
    files |= {f"press/{name}.png": cornered(number) for name, number in UNTOLD.items()}
    said = {name: [{"text": text, "lang": "fr"}] for name, text in french.items()}
    return Night(files, said | {name: [{"text": text, "lang": "en"}] for name, text in english.items()}, scores)


UNTOLD = {"refused": REFUSED, "broken": BROKEN, "told": TOLD}


def cornered(number: int) -> bytes:
    """A picture with a corner by which the captioner knows it."""
    made = picture(200 + number)
    made.paste(colour(number), (0, 0, 16, 16))
    return encode(made)


def two_nights(folder: Path, faults: FaultServer) -> Dataset:
    """The set after both; its newest run is finished and published."""
    faults.scripts = {REFUSED: ["refusal"] * 4, BROKEN: ["422"] * 4}
    asked = {"policy": "missing", "base_url": faults.base_url, "model": "m", "concurrency": 4}
    bounds = {"accept_above": 0.28, "reject_below": 0.20}
    quality = {**bounds, "languages": {"fr": {"model": "starter-multilingual", **bounds}}}
    set_ = Growing(folder, make_tiny(folder, {}, {}, caption=asked, quality=quality, shard_size=20))
    scores = {caption(TOLD): 0.5}
    for night in (first(), second()):
        for name, data in night.files.items():
            target = folder / "pictures" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        set_.said |= night.captions
        set_.write_captions()
        scores |= night.scores
        _recorded(set_, scores)
    return set_.dataset


def _recorded(set_: Growing, scores: Mapping[str, float]) -> None:
    """A night, with the records that a flow leaves."""
    run = set_.begin()
    version = set_.publish(dict(scores), run)
    for stage in Stage:
        shards = version.exported if stage is Stage.FINAL else version.shards
        run.stage_done(report(set_.dataset, stage, shards))
    run.record("languages", {"pairs": measure_pairs(set_.dataset, version.shards, set_.config.quality).to_pylist()})
    save(run, measure_health(run))
    run.finish(COMPLETED, "", to=Stage.FINAL.value, version=version.number, export=version.export)
