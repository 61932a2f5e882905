"""What the words of a command line mean; each mistake is one line that names the option."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from vlmdata.errors import ConfigError

if TYPE_CHECKING:
    from vlmdata.checkpoint import Dataset
    from vlmdata.config import BuildConfig
    from vlmdata.layout import Stage


def done_otherwise(config: BuildConfig, overrides: list[str]) -> BuildConfig:
    """The config with other limits, addresses or patience: nothing that would make it another dataset."""
    from vlmdata.config_reading import with_overrides

    changed = with_overrides(config, overrides)
    if changed.settings() != config.settings():
        raise ConfigError(
            f"--set {' '.join(overrides)}: would change what comes out, and retry only goes on with it; "
            "expected what says how it is done, such as caption.max_cost; for another outcome: vlmdata build"
        )
    return changed


def stage_of(name: str, option: str = "--to") -> Stage:
    """The stage of that name."""
    from vlmdata.layout import Stage

    try:
        return Stage(name)
    except ValueError:
        raise ConfigError(f"{option} {name!r}: expected one of {', '.join(Stage)}") from None


def as_iso(value: datetime) -> str:
    """A moment, as JSON has none."""
    return value.isoformat()


def stages_of(names: list[str] | None) -> list[Stage]:
    """The stages of those names; none named: all."""
    from vlmdata.layout import Stage

    return [stage_of(name, "--stage") for name in names] if names else list(Stage)


def classes_of(names: list[str] | None) -> list[str]:
    """Those classes of failure; none named: all."""
    from vlmdata.failures import CLASSES

    for name in names or ():
        if name not in CLASSES:
            raise ConfigError(f"--class {name!r}: expected one of {', '.join(CLASSES)}")
    return names or list(CLASSES)


def dataset_at(store: str, name: str) -> Dataset:
    """A dataset, which need not be there."""
    from vlmdata.checkpoint import Dataset
    from vlmdata.config import dataset_name

    try:
        return Dataset(store, dataset_name(name))
    except ValueError as error:
        raise ConfigError(f"--dataset {name!r}: expected {error}") from None
