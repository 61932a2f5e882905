"""Stages and their learning rates: a linear warmup, then a cosine down to `LAST_RATE`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vlmdata.errors import ConfigError, SourceError
from vlmdata.training.config import LAST_RATE, VISION_SHARE, WARMUP, StageConfig, TrainConfig

_FEW = math.ceil(1 / WARMUP[1])
"""Steps of which one is no longer a larger share than a warmup may take."""


@dataclass(frozen=True)
class Stage:
    """A stage with all that follows from config and data.

    Attributes:
        number: from 1.
        vision, text: what learns of each tower, as in `StageConfig`.
        epochs: its epochs; `first_epoch` is its first, counted over all stages from 0.
        peak: its highest rate.
        steps: its steps; `first_step` is its first, counted over all stages from 0.
        warmup: steps in which the rate rises: the nearest to the config's share, and one at least.
    """

    number: int
    vision: str
    text: str
    epochs: int
    first_epoch: int
    peak: float
    steps: int
    first_step: int
    warmup: int

    @property
    def end(self) -> int:
        """The step after its last."""
        return self.first_step + self.steps

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted over all stages."""
        at = step - self.first_step
        if at < self.warmup:
            return self.peak * (at + 1) / self.warmup
        done = (at - self.warmup) / max(1, self.steps - 1 - self.warmup)
        return LAST_RATE + (self.peak - LAST_RATE) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    @property
    def doubt(self) -> str | None:
        """What its few steps do to the schedule, if they do."""
        if self.steps >= _FEW:
            return None
        return (
            f"stage {self.number} has {self.steps} steps, too few for a warmup of {WARMUP[0]:.0%} to {WARMUP[1]:.0%}"
            f" of them: it takes {self.warmup}"
        )

    def __str__(self) -> str:
        return (
            f"stage {self.number}: vision {self.vision}, text {self.text}, {self.epochs} epochs, {self.steps} steps,"
            f" rate up to {self.peak:g} in {self.warmup} steps, then down to {LAST_RATE:g}"
        )


def planned(config: TrainConfig, *, from_scratch: bool) -> tuple[StageConfig, ...]:
    """The config's stages; where it names none, one: the text tower alone, or all of a model that knows nothing."""
    if config.stages:
        return config.stages
    vision = "trained" if from_scratch else "frozen"
    return (StageConfig.model_validate({"epochs": config.epochs, "vision": vision}),)


def require_learning_vision(config: TrainConfig, *, from_scratch: bool) -> None:
    """What `projection_dropout` hides, something has to miss.

    Raises:
        ConfigError: in no stage does the vision tower or its projection learn.
    """
    if all(stage.vision == "frozen" for stage in planned(config, from_scratch=from_scratch)):
        raise ConfigError(
            f"projection_dropout = {config.projection_dropout:g}: the vision tower and its projection are frozen in"
            " every stage; leave it 0, or name a stage with vision: projection"
        )


def stages_of(config: TrainConfig, samples: int, effective: int, *, from_scratch: bool) -> list[Stage]:
    """The stages of a training over `samples` pairs an epoch.

    Raises:
        ConfigError: a stage's rate is not above what it decays to.
        SourceError: the data has fewer pairs than one batch.
    """
    whole = samples // effective
    if not whole:
        raise SourceError(
            f"data: {samples} pairs to train on, fewer than one effective batch of {effective};"
            " give more data, or a smaller effective_batch (and allow_small_batch: true)"
        )
    steps = config.epoch_steps or whole
    stages: list[Stage] = []
    for number, stage in enumerate(planned(config, from_scratch=from_scratch), 1):
        before = stages[-1] if stages else None
        peak = _peak(config, stage, number, from_scratch=from_scratch)
        count = stage.epochs * steps
        stages.append(
            Stage(
                number=number,
                vision=stage.vision,
                text=stage.text,
                epochs=stage.epochs,
                first_epoch=before.first_epoch + before.epochs if before else 0,
                peak=peak,
                steps=count,
                first_step=before.end if before else 0,
                warmup=max(1, round(config.warmup * count)),
            )
        )
    return stages


def _peak(config: TrainConfig, stage: StageConfig, number: int, *, from_scratch: bool) -> float:
    gently = stage.vision == "trained" and not from_scratch
    peak = stage.base_lr or config.base_lr * (VISION_SHARE if gently else 1)
    # A tenth of 1e-5 is a little above 1e-6, as computers reckon.
    if peak <= LAST_RATE * (1 + 1e-9):
        why = f" (base_lr / {1 / VISION_SHARE:.0f}, as its vision tower learns)" if gently and not stage.base_lr else ""
        raise ConfigError(
            f"stages.{number - 1}: its rate {peak:g}{why} is not above {LAST_RATE:g}, which it decays to;"
            " set a larger base_lr"
        )
    return peak


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """The stage that a step belongs to."""
    return next(stage for stage in stages if step < stage.end)
