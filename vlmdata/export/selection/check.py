"""What can be known to be wrong with a selection before anything is done."""

from __future__ import annotations

from vlmdata.config import ExportConfig, QualityConfig
from vlmdata.errors import ConfigError
from vlmdata.export.selection.benchmark_list import BenchmarkList, read_list
from vlmdata.export.selection.quotas import DECILES, EVERY_OTHER
from vlmdata.health.buckets import SIDES
from vlmdata.quality.judges import judges

_KNOWN = {"size": SIDES.labels, "score_decile": DECILES}


def check_selection(config: ExportConfig, quality: QualityConfig) -> None:
    """Raise ConfigError if a group is named that there cannot be, or a list of evaluation sets cannot be used."""
    for what, named in (("weights", config.select.weights), ("caps", config.select.caps)):
        for dimension, known in _KNOWN.items():
            strange = set(named.get(dimension, {})) - {*known, EVERY_OTHER}  # type: ignore[call-overload]
            if strange:
                raise ConfigError(
                    f"export.select.{what}.{dimension}: {min(strange)!r} is none; expected {', '.join(known)}, or *"
                )
    read_lists(config, quality)


def read_lists(config: ExportConfig, quality: QualityConfig) -> list[BenchmarkList]:
    """The lists of evaluation sets that a config names.

    Raises:
        ConfigError: one cannot be read, or another model than `quality.model` embedded it.
    """
    lists = [read_list(path) for path in config.decontaminate.lists]
    for path, one in zip(config.decontaminate.lists, lists, strict=True):
        judge = judges(quality).default.identity
        if config.decontaminate.cosine is not None and one.vectors is not None and one.model != judge:
            raise ConfigError(
                f"export.decontaminate.lists: {path}: its pictures were embedded by {one.model}, and quality.model is"
                f" {judge}; make it again with --config, or set export.decontaminate.cosine: null"
            )
    return lists
