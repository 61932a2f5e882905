"""What a run writes down: a line of figures a step, sentences, and whatever tracker is asked for."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vlmdata.errors import ConfigError

METRICS, SENTENCES = "metrics.jsonl", "log.txt"
_PACKAGES = {"tensorboard": ("tensorboard", "train"), "wandb": ("wandb", "wandb")}
"""By tracker: its package, and the extra that installs it."""

Figures = Mapping[str, Any]


class Tracker(Protocol):
    """Where figures go besides the file."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of a step, by name."""

    def close(self) -> None:
        """Nothing more comes."""


class Log:
    """A run's log, opened after so many steps: what a run that was killed wrote of later ones is taken back."""

    def __init__(self, out: Path, step: int, trackers: Sequence[Tracker] = ()) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._metrics, self._sentences = out / METRICS, out / SENTENCES
        self._trackers = trackers
        _cut(self._metrics, step)
        self._file = self._metrics.open("a", encoding="utf-8")

    def figures(self, step: int, kind: str, figures: Figures) -> None:
        """A line: `step` is the number of steps done, `kind` is step or evaluation."""
        self._file.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
        self._file.flush()
        for tracker in self._trackers:
            tracker.log(step, {f"{kind}/{name}": value for name, value in figures.items() if _is_number(value)})

    def say(self, sentence: str) -> None:
        """A sentence for people."""
        with self._sentences.open("a", encoding="utf-8") as file:
            file.write(sentence + "\n")

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


class Silent(Log):
    """That of a process that is not the first: nobody reads it."""

    def __init__(self) -> None:
        pass

    def figures(self, step: int, kind: str, figures: Figures) -> None:
        pass

    def say(self, sentence: str) -> None:
        pass

    def close(self) -> None:
        pass


def read_figures(out: Path) -> list[dict[str, Any]]:
    """All lines of figures."""
    with (out / METRICS).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_warnings(out: Path) -> list[str]:
    """The sentences of the log that warn."""
    path = out / SENTENCES
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    # A run that was broken off after a warning says it again.
    return list(dict.fromkeys(line for line in lines if line.startswith("Warning: ")))


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError unless each tracker that is asked for is installed."""
    for name in names:
        package, extra = _PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"trackers: {name} is not installed; install vlmdata[{extra}], or leave it out")


def open_trackers(names: Sequence[str], out: Path, step: int, settings: dict[str, Any]) -> list[Tracker]:
    """The trackers of these names, for a run that is at `step`."""
    makers: dict[str, Callable[..., Tracker]] = {"tensorboard": _TensorBoard, "wandb": _WeightsAndBiases}
    return [makers[name](out, step, settings) for name in names]


class _TensorBoard:
    def __init__(self, out: Path, step: int, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """Offline unless the person has set it up: nothing is sent that nobody asked to send."""

    def __init__(self, out: Path, step: int, settings: dict[str, Any]) -> None:
        # It would advertise another product wherever a client of a hosted API is imported, too.
        os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
        import wandb

        asked = os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE")
        offline = not asked or os.environ.get("WANDB_MODE") == "offline"
        try:
            self._run: Any = wandb.init(
                dir=str(out),
                config=settings,
                id=settings["run"],
                resume=None if offline else "allow",
                project=os.environ.get("WANDB_PROJECT", "vlmdata"),
                mode="offline" if offline else None,
                # What is printed is not theirs to keep, and a bar is no place for their lines.
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"trackers: wandb does not start ({reason}); set WANDB_MODE=offline, or leave it out"
            ) from error

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cut(path: Path, step: int) -> None:
    """Leave the lines up to a step; a last line that was not finished goes, too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    part = path.with_suffix(".part")
    part.write_text("".join(kept), encoding="utf-8")
    part.replace(path)
