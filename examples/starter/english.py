"""The recipe of `starter`: openclipart and emoji with English captions."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starter.drawings import Drawing, openclipart
from starter.emoji import fetch_emoji
from starter.evaluation import measure
from starter.features import Towers
from starter.files import Folder
from starter.rendering import apart, render, render_stamps
from starter.stamps import ENGLISH, gallery, stamps
from starter.tars import write_tar
from starter.training import Item, Pairs, pairs_of
from vlmdata.models import starter
from vlmdata.models.calibration import FILE_NAME, calibrate
from vlmdata.models.starter.build import TRAINED, tower_hashes
from vlmdata.training.config import TRAIN
from vlmdata.training.engine.models import learner, load_weights
from vlmdata.training.train import train

# Places among a drawing's captions.
TITLE, FULL = 0, 1
NOTE = "openclipart drawings that were not trained on, with their titles; by examples/train_starter.py"


def main(options: Namespace) -> None:
    """Make the folder of `starter`."""
    drawings = openclipart(options.openclipart)
    for icons in fetch_emoji(options.work):
        drawings += icons.drawings.values()
    found = stamps(options.stamps)
    pictures = render(drawings, options.work / "pictures")
    stamp_pictures = render_stamps(found, options.work / "pictures")
    held = [drawing for drawing in drawings if drawing.part == "held out" and drawing.key in pictures]
    measured_on = [*(pictures[drawing.key] for drawing in held), *stamp_pictures.values()]
    train_on = apart([drawing for drawing in drawings if drawing.part == "train"], pictures, measured_on)

    config = TRAIN.read(
        Path(__file__).with_name("english.yaml"),
        [
            f"data={write_tar(options.work / 'drawings', samples(train_on, pictures))}",
            f"out={options.work / 'training'}",
            f"seed={options.seed}",
        ],
    )
    towers = Towers(learner(config).parts, options.work, "texts")
    held_out = pairs_of(towers, pictures, [(d.key, d.captions()) for d in held], 1)
    items: list[Item] = gallery(found, stamp_pictures, ENGLISH)
    described = pairs_of(towers, stamp_pictures, items, 1)

    model, folder = towers.parts.model, Folder(options.out, starter.NAME, starter.WEIGHTS.name)
    bridge = table(model, held_out, described)
    story = train(config)
    load_weights(model, Path(story["model"]))
    folder.save(model, TRAINED)
    folder.write_config(starter.CONFIG, towers=tower_hashes())
    trained = table(model, held_out, described)
    # Titles alone: a list of keywords scores higher than what people write as a caption.
    titles = measure(model, held_out, TITLE)
    bands = calibrate(titles.matched, titles.shuffled)
    searched = titles.trusted(bands)
    folder.write_calibration(bands, searched, "en", NOTE, FILE_NAME)
    sources = Counter(drawing.source for drawing in train_on)
    folder.write_card(
        "english.md",
        **asdict(bands),
        gallery=searched.gallery,
        bridge=bridge,
        trained=trained,
        size=folder.megabytes,
        dim=model.text.output_dim,
        context=towers.parts.tokenizer.context_length,
        count=len(train_on),
        sources=", ".join(f"{count:,} {source}" for source, count in sorted(sources.items())),
        seed=options.seed,
        steps=story["steps"],
        stages="\n".join(f"  - {stage}" for stage in story["stages"]),
        pairs=f"{story['data']['train']:,}",
        batch=story["batch"]["effective"],
    )
    print(bridge, trained, sep="\n")


def samples(drawings: list[Drawing], pictures: dict[str, Path]) -> Iterator[tuple[str, bytes, list[str]]]:
    """Key, picture and captions of each, by key."""
    for drawing in sorted(drawings, key=lambda one: one.key):
        yield drawing.key, pictures[drawing.key].read_bytes(), drawing.captions()


def table(model: Any, held_out: Pairs, described: Pairs) -> str:
    """What the card shows of a model: a row for each gallery."""
    galleries = {
        "held-out openclipart, title and keywords": (held_out, FULL),
        "held-out openclipart, title": (held_out, TITLE),
        "Tux Paint stamps, description": (described, TITLE),
    }
    return "\n".join(measure(model, *what).row(name) for name, what in galleries.items())
