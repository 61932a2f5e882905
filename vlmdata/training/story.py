"""run.json: all that a training came from, so that it can be done again."""

from __future__ import annotations

import json
import platform
import subprocess
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.errors import ConfigError, VlmdataError
from vlmdata.store import LocalStore
from vlmdata.training.config import TrainConfig
from vlmdata.training.samples import TRAIN, VALIDATION, Samples
from vlmdata.versions.version import numbers, read_version

RUN = "run.json"
_LIBRARIES = ("vlmdata", "torch", "torchvision", "open_clip_torch", "timm", "transformers", "numpy", "pillow", "peft")


def config_hash(config: TrainConfig, samples: Samples) -> str:
    """A name for what decides the outcome: settings and data, wherever these lie."""
    terms = json.dumps([config.settings(), samples.digest], sort_keys=True)
    return sha256(terms.encode()).hexdigest()[:16]


def story_of(
    config: TrainConfig, samples: Samples, before: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """What run.json says.

    Args:
        before: What it said when the training was broken off.
        more: What is known only where torch is.
    """
    now = {
        "run": config_hash(config, samples),
        "config_hash": config_hash(config, samples),
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "data": _data(config, samples),
        **_commit(Path(__file__).parent),
        "libraries": {"python": platform.python_version(), **_versions()},
        **more,
    }
    if before and before.get("finished"):  # nothing is done again
        return {**now, **_sitting(before), "earlier": before.get("earlier", [])}
    then = [*before.get("earlier", []), _sitting(before)] if before else []
    return {**now, "earlier": [one for one in then if one != _sitting(now)]}


_SITTING = ("git_commit", "git_changes", "libraries", "precision", "hardware", "batch")
"""What a part of a training ran on, in so far as it can change from one part to the next."""


def _sitting(story: dict[str, Any]) -> dict[str, Any]:
    return {name: story.get(name) for name in _SITTING}


def check_precision(before: dict[str, Any] | None, config: TrainConfig, precision: str, why: str) -> None:
    """What began in one precision goes on in it.

    Raises:
        ConfigError: it began in another one.
    """
    if before and not before.get("finished") and before.get("precision") not in (None, precision):
        raise ConfigError(
            f"out = {config.out!r}: began in {before['precision']}, and would go on in {precision} ({why});"
            " go on where it began, or give another out"
        )


def _data(config: TrainConfig, samples: Samples) -> dict[str, Any]:
    manifest = samples.manifest or {}
    return {
        "dataset": manifest.get("dataset"),
        "version": _version(config.data, manifest),
        "export": manifest.get("export"),
        "manifest_hash": samples.digest,
        "samples": manifest.get("samples"),
        "train": len(samples.rows(TRAIN)),
        "validation": len(samples.rows(VALIDATION)),
        "left_out": samples.left_out,
        "validation_by": "hash of the sample's id" if samples.held_out else "split",
        "says_left_or_right": samples.sided,
    }


def _version(data: str, manifest: dict[str, Any]) -> int | None:
    """The newest version of the set that was published with this export, if it lies in the store where it was built."""
    if not manifest:
        return None
    below = f"/{layout.export_prefix(str(manifest.get('dataset')), str(manifest.get('export')))}"
    store, found, rest = data.rstrip("/").rpartition(below)
    if not found or rest:
        return None
    dataset = Dataset(store, str(manifest["dataset"]))
    try:
        named = (number for number in reversed(numbers(dataset)) if read_version(dataset, number).export == below[1:])
        return next(named, None)
    except (VlmdataError, OSError):
        # Who may read an export need not be able to read what lies around it; the manifest's hash tells what it was.
        return None


def put_story(out: Path, story: dict[str, Any]) -> None:
    """Write run.json, whole."""
    LocalStore(str(out), "out").replace(RUN, (json.dumps(story, indent=1) + "\n").encode())


def read_story(out: Path, key: str = "out") -> dict[str, Any] | None:
    """run.json of a folder, if there is one.

    Args:
        key: What a person calls the folder.

    Raises:
        ConfigError: it cannot be read.
    """
    path = out / RUN
    if not path.is_file():
        return None
    try:
        story = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {path} cannot be read ({error}); give another {key}") from error
    if not isinstance(story, dict) or not isinstance(story.get("config"), dict):
        raise ConfigError(f"{key}: {path} is no training's; give another {key}")
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


def _commit(source: Path) -> dict[str, Any]:
    """The commit of this code, if it runs from a checkout, and whether its files have been changed since."""
    if not _git(source, "ls-files", Path(__file__).name):  # installed, in a folder of somebody else's repository
        return {"git_commit": None, "git_changes": None}
    return {
        "git_commit": _git(source, "rev-parse", "HEAD") or None,
        "git_changes": None if (changes := _changes(source.parent)) is None else bool(changes),
    }


def _changes(package: Path) -> str | None:
    return _git(package, "--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--", ".")


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None: it is not there, this is no repository, or it takes for ever."""
    asking = ["git", "-C", str(folder), *words]
    try:
        asked = subprocess.run(asking, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
