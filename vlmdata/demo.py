"""The demo: the sample that ships with the project, judged against what was planted in it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlmdata.checkpoint import Dataset
from vlmdata.config import BuildConfig
from vlmdata.config_reading import parse_config
from vlmdata.errors import ConfigError
from vlmdata.explain import explain
from vlmdata.models import starter_multilingual
from vlmdata.models.source import describe


def config_of(sample: Path, directory: Path) -> BuildConfig:
    """The demo's config.

    Raises:
        ConfigError: the sample is not there.
    """
    if not (sample / "captions.jsonl").is_file():
        raise ConfigError(f"--sample {sample}: no captions.jsonl there; run this in a checkout of the project")
    return parse_config(
        {
            "dataset": "stamps",
            "store": str((directory / "store").absolute()),
            "source": {
                "kind": "folder",
                "path": str((sample / "pictures").absolute()),
                "captions": str((sample / "captions.jsonl").absolute()),
            },
            "shard_size": 100,
            # What the starter writes and judges itself proves nothing: held samples stay held.
            "caption": {"model": "starter", "recaption_held": 0},
            # English by the one starter, what the other knows by that; the rest is held (the sample's Japanese).
            "quality": {"model": "starter", "pretrained": None, "languages": other_languages()},
        },
        "demo",
    )


def other_languages() -> dict[str, dict[str, Any]]:
    """`quality.languages` that lets `starter-multilingual` judge what it knows beside English."""
    known = describe(starter_multilingual.NAME).languages - {"en"}
    return {language: {"model": starter_multilingual.NAME} for language in sorted(known)}


@contextmanager
def captioned_by_stand_in(config: BuildConfig) -> Iterator[BuildConfig]:
    """The same config, with the stand-in captioner running and named."""
    from vlmdata.captioning.server import running_server

    with running_server() as base_url:
        caption = config.caption.model_copy(update={"base_url": base_url})
        yield config.model_copy(update={"caption": caption})


def expected_troubles(config: BuildConfig, sample: Path) -> list[str]:
    """One line for each trouble that was planted in the sample: caught for the right reason, or not."""
    dataset = Dataset(config.store, config.dataset)
    planted: list[dict[str, Any]] = json.loads((sample / "troubles.json").read_text(encoding="utf-8"))
    lines = [_verdict(dataset, trouble) for trouble in planted]
    return ["", "Planted in the sample:", *lines]


def _verdict(dataset: Dataset, trouble: dict[str, Any]) -> str:
    # Of two pictures of one size the stable id decides which one stays, so either may be the duplicate.
    files = [trouble["file"], *([trouble["of"]] if trouble.get("either") else [])]
    stories = [explain(dataset, file) for file in files]
    wanted = trouble["code"]
    seen = set().union(*(_codes(story, trouble["level"]) for story in stories))
    caught = wanted in seen if wanted else stories[0]["stages"][-1]["outcome"] == "kept"
    mark = "caught" if caught else "MISSED"
    return f"  {mark}  {wanted or 'kept':<20} {trouble['file']:<44} {trouble['why']}"


def _codes(story: dict[str, Any], level: str) -> set[str]:
    codes = set()
    for stage in story["stages"]:
        facts = stage["facts"]
        reasons = facts.get("captions not kept", []) if level == "caption" else [facts.get("reason", facts)]
        codes |= {reason.get("code") for reason in reasons}
    return codes


def next_commands(config: BuildConfig, sample: Path) -> list[str]:
    """What to try next, ready to be copied."""
    where = f"--store {os.path.relpath(config.store)} --dataset {config.dataset}"
    planted: list[dict[str, Any]] = json.loads((sample / "troubles.json").read_text(encoding="utf-8"))
    misaligned = next((trouble["file"] for trouble in planted if trouble["code"] == "misaligned"), "SAMPLE")
    return [
        "",
        "Captions that the starter model made and the starter judged prove nothing; a real set wants real models.",
        "",
        "Next:",
        f"  {_COMMAND} report {where}",
        f"  {_COMMAND} explain {misaligned} {where}",
        f"  {_COMMAND} init my-set",
    ]


_COMMAND = os.path.relpath(Path(sys.executable).with_name("vlmdata"))
"""As it can be typed here, activated environment or not."""
