"""Checkpoints: a folder is there whole or not at all, and the newest one is where a run goes on.

Weights are safetensors beside their `open_clip_config.json`, so that a folder
is a model; the trainer's state is plain tensors and numbers, which load with
`weights_only=True`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vlmdata.errors import ConfigError, StoreError

STATE = "trainer.pt"
_STEP = "step-"
_PARTS = ("step", "optimizer", "evaluations")


def folder_of(out: Path, step: int) -> Path:
    """Where the checkpoint after so many steps lies."""
    return out / "checkpoints" / f"{_STEP}{step:09d}"


def checkpoints(out: Path) -> list[Path]:
    """All that are whole, oldest first."""
    return sorted((out / "checkpoints").glob(f"{_STEP}*"))


def save(out: Path, step: int, state: dict[str, Any], write_model: Callable[[Path], None], keep: int) -> Path:
    """Write a checkpoint, and remove all but the newest `keep`."""

    def write(folder: Path) -> None:
        write_model(folder)
        torch.save(state, folder / STATE)

    target = whole(folder_of(out, step), write)
    for old in checkpoints(out)[:-keep]:
        shutil.rmtree(old)
    return target


def load_state(folder: Path) -> dict[str, Any]:
    """The trainer's state.

    Raises:
        ConfigError: it cannot be read.
    """
    import pickle

    try:
        state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        if lacking := [name for name in _PARTS if name not in state]:
            raise ValueError(f"it has no {lacking[0]}")
    except (OSError, RuntimeError, EOFError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise unreadable(folder, STATE, error) from error
    return state


def unreadable(folder: Path, name: str, error: Exception) -> ConfigError:
    """What to say of a checkpoint that was damaged."""
    reason = " ".join(str(error).split())[:200]
    return ConfigError(f"out: {folder / name} cannot be read ({reason}); remove {folder} to go on from before")


def whole(target: Path, write: Callable[[Path], None]) -> Path:
    """Make a folder that appears under its name when all of it is on the disk; one that was there is replaced."""
    part = target.with_name(f".part-{target.name}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        write(part)
        for path in part.iterdir():
            _sync(path)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise StoreError(
            f"out: {target} cannot be written ({error.strerror}); free space or give another out"
        ) from error
    return target


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
