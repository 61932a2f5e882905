"""What a finished export's README.md says of the run that made it: its sources as they were counted, its software."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import open_clip
import PIL
import pyarrow as pa
import pytest
import torch
import torchvision
import transformers

from vlmdata.export.card_facts import card_facts
from vlmdata.export.finish import finish_export, locate_export
from vlmdata.health.measure import measure_health
from vlmdata.health.saved import save
from vlmdata.layout import Stage
from vlmdata.runs import start_run

ROOT = Path(__file__).parents[3]
HOSTS = {"birds/0.png": "http://Photos.example:8080/a.png?x=1", "birds/1.png": "https://me@photos.example/b.png"}


@pytest.fixture
def readme(tiny: Callable[..., Any], pictures: Any, tmp_path: Path) -> str:
    """Of a set of folders and addresses; what is too small, or does not match, is no part of it."""
    names = [*(f"birds/{n}.png" for n in range(5)), *(f"trains/{n}.png" for n in range(2)), "loose.png"]
    files = {name: pictures.png(n) for n, name in enumerate(names)}
    files |= {"birds/tiny.png": pictures.png(50, 20, 20), "ships/tiny.png": pictures.png(51, 20, 20)}
    files |= {"trains/wrong.png": pictures.png(52)}
    built = tiny(files, {name: [name] for name in files})
    rows = [{"file": name, "captions": [name], "url": HOSTS.get(name)} for name in files]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = start_run(built.dataset, built.config)
    steps: dict[Stage, Callable[[Any], Any]] = {
        Stage.RAW: lambda done: done.ingested(),
        Stage.FILTERED: lambda done: done.filtered(),
        Stage.CAPTIONED: lambda done: done.captioned(),
        Stage.CHECKED: lambda done: done.judged({"trains/wrong.png": 0.1}),
        Stage.FINAL: lambda done: done.exported(),
    }
    for stage, step in steps.items():
        built = step(built)
        run.stage_done(built.report(stage))
        if stage is Stage.CHECKED:
            save(run, measure_health(run))
    place = finish_export(built.dataset, built.shards, built.config.export, card_facts(run, built.config))
    return Path(locate_export(built.dataset.store, place), "README.md").read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What the card says under a heading."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def table(text: str) -> list[list[str]]:
    """The rows of the first table, less its head; cells without their backticks."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip().strip("`") for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


def test_sources_are_listed_with_their_counts_as_they_are(readme: str) -> None:
    sources = section(readme, "Sources")
    assert "A source of kind `folder`, `pictures`." in sources
    assert "| host or folder | pictures that passed |" in sources
    assert table(sources) == [["birds", "3"], ["photos.example", "2"], ["trains", "2"], [".", "1"]]


def test_the_versions_of_this_environment_are_on_the_card(readme: str) -> None:
    """As the libraries themselves say; of torch's the build is left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    software = section(readme, "Software")
    assert "| package | version |" in software
    told = dict(table(software))
    here = {
        "vlmdata": project["version"],
        "python": sys.version.split()[0],
        "torch": torch.__version__.partition("+")[0],
        "torchvision": torchvision.__version__.partition("+")[0],
        "open_clip_torch": open_clip.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "pyarrow": pa.__version__,
        "transformers": transformers.__version__,
    }
    assert {name: told.get(name) for name in here} == here
    assert all(re.fullmatch(r"\d+(\.\w+)+", version) for version in told.values()), told
