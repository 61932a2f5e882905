"""Scorers: more measurements of pictures, off unless the config names them.

A new one is a file with a class (`base.Scorer`), a line in `SCORERS`, its name
in `config.Scorer`, and its column in `schema.CHECKED`.
"""

from __future__ import annotations

from vlmdata.checkpoint import Dataset, Manifest, Shard
from vlmdata.config import QualityConfig, ScoreBounds
from vlmdata.errors import ConfigError
from vlmdata.quality.scorers.base import Scorer
from vlmdata.quality.scorers.marks import marks
from vlmdata.quality.scorers.nsfw import Nsfw
from vlmdata.quality.scorers.rule import beyond_bounds
from vlmdata.quality.scorers.sharpness import Sharpness
from vlmdata.quality.scorers.text import TextInPicture

__all__ = ["SCORERS", "Scorer", "beyond_bounds", "check_scorers", "measure_marks", "scorers"]

SCORERS: dict[str, Scorer] = {one.name: one for one in (Nsfw(), TextInPicture(), Sharpness())}
"""By name in the config; a picture that several reject is rejected by the first."""


def scorers(config: QualityConfig) -> dict[Scorer, ScoreBounds]:
    """The scorers that a config names, with their bounds."""
    return {scorer: config.scorers[name] for name, scorer in SCORERS.items() if name in config.scorers}


def check_scorers(config: QualityConfig) -> None:
    """Find out whether the scorers that a config names can work here; loads no model.

    Raises:
        ConfigError: a package is missing, or bounds let nothing through; one line says what to change.
    """
    for scorer, bounds in scorers(config).items():
        least, most = bounds.reject_below, bounds.reject_above
        if least is not None and most is not None and least > most:
            raise ConfigError(
                f"quality.scorers.{scorer.name}: reject_below = {least} is above reject_above = {most};"
                " nothing would be let through; exchange them"
            )
        scorer.check()


def measure_marks(dataset: Dataset, shard: Shard, config: QualityConfig) -> dict[str, Manifest]:
    """What a config's scorers measure in a shard, by their columns; `marks.marks` says more."""
    return marks(dataset, shard, scorers(config))
