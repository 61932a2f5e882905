"""run.json: all that a training came from, so that it can be done again."""

from __future__ import annotations

import json
import platform
import subprocess
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vlmdata.errors import ConfigError
from vlmdata.store import LocalStore
from vlmdata.training.config import TrainConfig
from vlmdata.training.samples import TRAIN, VALIDATION, Samples

RUN = "run.json"
_LIBRARIES = ("vlmdata", "torch", "torchvision", "open_clip_torch", "timm", "transformers", "numpy", "pillow", "peft")


def config_hash(config: TrainConfig, samples: Samples) -> str:
    """A name for what decides the outcome: settings and data, wherever these lie."""
    terms = json.dumps([config.settings(), samples.digest], sort_keys=True)
    return sha256(terms.encode()).hexdigest()[:16]


def story_of(config: TrainConfig, samples: Samples, **more: Any) -> dict[str, Any]:
    """What run.json says; `more` is what is known only where torch is."""
    return {
        "run": config_hash(config, samples),
        "config_hash": config_hash(config, samples),
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "data": _data(samples),
        "git_commit": git_commit(),
        "libraries": {"python": platform.python_version(), **_versions()},
        **more,
    }


def _data(samples: Samples) -> dict[str, Any]:
    manifest = samples.manifest or {}
    return {
        "dataset": manifest.get("dataset"),
        "version": manifest.get("version"),
        "export": manifest.get("export"),
        "manifest_hash": samples.digest,
        "samples": manifest.get("samples"),
        "train": len(samples.rows(TRAIN)),
        "validation": len(samples.rows(VALIDATION)),
        "left_out": samples.left_out,
        "validation_by": "hash of the sample's id" if samples.held_out else "split",
        "says_left_or_right": samples.sided,
    }


def put_story(out: Path, story: dict[str, Any]) -> None:
    """Write run.json, whole."""
    LocalStore(str(out), "out").replace(RUN, (json.dumps(story, indent=1) + "\n").encode())


def read_story(out: Path) -> dict[str, Any] | None:
    """run.json of a folder, if there is one.

    Raises:
        ConfigError: it cannot be read.
    """
    path = out / RUN
    if not path.is_file():
        return None
    try:
        story = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"out: {path} cannot be read ({error}); give another out") from error
    if not isinstance(story, dict) or not isinstance(story.get("config"), dict):
        raise ConfigError(f"out: {path} is no training's; give another out")
    return story


def check_same(before: dict[str, Any] | None, config: TrainConfig, samples: Samples) -> None:
    """A folder belongs to one training.

    Raises:
        ConfigError: it holds another one; says what differs.
    """
    if before is None or before.get("config_hash") == config_hash(config, samples):
        return
    now, then = config.model_dump(mode="json"), before["config"]
    keys = [key for key in config.settings() if now.get(key) != then.get(key)]
    what = ", ".join(f"{key} was {then.get(key)!r} and is {now.get(key)!r}" for key in keys) or "its data is another"
    if then.get("model") != now["model"]:
        what = f"its checkpoints are of another architecture: model was {then.get('model')!r}, and is {now['model']!r}"
    raise ConfigError(
        f"out = {config.out!r}: holds a training of other settings ({what}); give another out, or remove it"
    )


def git_commit() -> str | None:
    """The commit of the working folder, if it is in a repository."""
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
