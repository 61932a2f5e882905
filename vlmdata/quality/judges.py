"""Which model judges which language, and with which bounds. A score names its model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vlmdata.config import LanguageModel, QualityConfig
from vlmdata.errors import ConfigError
from vlmdata.models.calibration import thresholds_for
from vlmdata.models.source import describe


@dataclass(frozen=True)
class Judge:
    """A model and the bounds of its three bands, float32 as the scores are."""

    model: str
    pretrained: str | None
    identity: str
    languages: frozenset[str]
    accept_above: np.float32
    reject_below: np.float32
    note: str

    def settings(self) -> list[str]:
        """What decides a band: the model's content and both bounds."""
        return [self.identity, str(self.accept_above), str(self.reject_below)]


@dataclass(frozen=True)
class Judges:
    """The judges of a run; None for a language that no model at hand knows."""

    default: Judge
    special: dict[str, Judge]
    unlabelled: str

    def of(self, language: str) -> Judge | None:
        """The judge of a language."""
        if language in self.special:
            return self.special[language]
        return self.default if language in self.default.languages else None


def judges(config: QualityConfig) -> Judges:
    """The judges that a config names, without loading a model.

    Raises:
        ConfigError: a model, tag or folder that is not there, or bounds upside down.
    """
    named = LanguageModel(
        model=config.model,
        pretrained=config.pretrained,
        accept_above=config.accept_above,
        reject_below=config.reject_below,
    )
    named_for = {tag.split("-", 1)[0].lower(): choice for tag, choice in config.languages.items()}
    if len(named_for) != len(config.languages):
        raise ConfigError(f"quality.languages = {sorted(config.languages)}: one model a language; its regions share it")
    special = {language: _judge(choice, language) for language, choice in named_for.items()}
    return Judges(_judge(named, config.unlabelled_language), special, config.unlabelled_language)


@lru_cache(maxsize=32)
def _judge(choice: LanguageModel, language: str) -> Judge:
    about = describe(choice.model, choice.pretrained)
    calibration = thresholds_for(choice.model, choice.pretrained, language)
    accept = calibration.accept_above if choice.accept_above == "auto" else choice.accept_above
    reject = calibration.reject_below if choice.reject_below == "auto" else choice.reject_below
    if accept < reject:
        raise ConfigError(
            f"quality: reject_below = {reject} is above accept_above = {accept} ({choice.model}, {language});"
            " expected reject_below to be the lower of the two"
        )
    return Judge(
        model=choice.model,
        pretrained=choice.pretrained,
        identity=about.identity,
        languages=about.languages,
        accept_above=np.float32(accept),
        reject_below=np.float32(reject),
        note=calibration.note,
    )
