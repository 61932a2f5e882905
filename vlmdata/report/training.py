"""What a model learned from the set: the record of a training, for the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmdata.errors import ConfigError
from vlmdata.training.card import WAYS, batch
from vlmdata.training.curves import CURVES
from vlmdata.training.story import read_story

HEAD = ("epoch", "steps", *(f"{way} R@{k}" for way in WAYS.values() for k in (1, 5, 10)))
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST = 3_000_000
"""Bytes of curves: ours have some 150,000."""


@dataclass(frozen=True)
class Trained:
    """A training, as its folder tells of it.

    Attributes:
        about: sentences on what was trained, on what, and how.
        rows: recall after each epoch, in the columns of `HEAD`.
        curves: a PNG; None: nothing could draw it.
    """

    about: list[str]
    rows: list[tuple[str, ...]]
    curves: bytes | None


def read_training(folder: Path, dataset: str) -> Trained:
    """Read the folder of a training that is finished.

    Raises:
        ConfigError: it is none, it is not finished, or it was trained on another dataset's export.
    """
    story = read_story(folder, "--training")
    if story is None:
        raise ConfigError(f"--training {folder}: holds no training; give the `out` of vlmdata train")
    if not story.get("finished"):
        raise ConfigError(f"--training {folder}: is not finished; run vlmdata train again, and it goes on")
    try:
        if story["data"]["dataset"] not in (None, dataset):
            raise ConfigError(
                f"--training {folder}: was trained on {story['data']['dataset']!r}, and this is a report of"
                f" {dataset!r}; give a training of this one"
            )
        return Trained(_about(story), [_row(one) for one in story["evaluations"]], _curves(folder))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"--training {folder}: its run.json is no training's ({error})") from error


def _about(story: dict[str, Any]) -> list[str]:
    data = story["data"]
    version = f", version {data['version']}" if data.get("version") else ""
    what = f"{data['dataset']}{version}" if data["dataset"] else "tars that no build of this project made"
    return [
        f"{story['config']['model']}, trained on {what}: {data['train']:,} pairs, {data['validation']:,} held out"
        f" by {data['validation_by']}; export {data['export'] or '–'}, manifest {data['manifest_hash']}.",
        f"{story['steps']:,} steps; {batch(story)}; {story['precision']}; loss {story['config']['loss']};"
        f" seed {story['seed']}.",
        *(f"{str(stage).capitalize()}." for stage in story["stages"]),
        *map(str, story.get("warnings", [])),
    ]


def _row(evaluation: dict[str, Any]) -> tuple[str, ...]:
    cells = [f"{evaluation['epoch']:,}", f"{evaluation['step']:,}"]
    for way in WAYS:
        low, high = evaluation[f"{way}_r10_interval"]
        cells += [f"{evaluation[f'{way}_r{k}']:.1%}" for k in (1, 5)]
        cells.append(f"{evaluation[f'{way}_r10']:.1%} [{low:.1%}, {high:.1%}]")
    return tuple(cells)


def _curves(folder: Path) -> bytes | None:
    path = folder / CURVES
    if not path.is_file() or path.stat().st_size > _LARGEST:
        return None
    data = path.read_bytes()
    return data if data.startswith(_PNG) else None
