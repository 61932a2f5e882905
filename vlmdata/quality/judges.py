"""Which model judges which language, and with which bounds. A score names its model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from vlmdata.config import LanguageModel, QualityConfig, RetrievalConfig
from vlmdata.errors import ConfigError
from vlmdata.measure.language import primary
from vlmdata.models.calibration import Calibration, calibration_in, own_calibrations, thresholds_for
from vlmdata.models.source import describe, resolve
from vlmdata.quality.trusted import Trusted

_log = logging.getLogger("vlmdata")
Bound = float | Literal["auto"]


@dataclass(frozen=True)
class Judge:
    """A model and the bounds of its three bands, float32 as the scores are.

    `language` is that of the captions on which its bounds were found, null
    where the config gives them both; `trusted` what it brings to the
    retrieval check; `borrowed` says that its bounds are another model's.
    """

    model: str
    pretrained: str | None
    identity: str
    languages: frozenset[str]
    accept_above: np.float32
    reject_below: np.float32
    note: str
    language: str | None = None
    trusted: Trusted = field(default_factory=Trusted)
    borrowed: bool = False

    def settings(self) -> list[str]:
        """What decides a band: the model's content and both bounds."""
        return [self.identity, str(self.accept_above), str(self.reject_below)]


@dataclass(frozen=True)
class Search:
    """How a model searches for right captions: in so many galleries of a size, and how many it may miss."""

    judge: Judge
    gallery: int
    galleries: int
    max_miss_rate: float


@dataclass(frozen=True)
class Judges:
    """The judges of a run; None for a language that no model at hand knows.

    `special` holds the languages with a model, or with bounds, of their own.
    """

    default: Judge
    special: dict[str, Judge]
    unlabelled: str

    def of(self, language: str) -> Judge | None:
        """The judge of a language; a bound that was found on another one is used, and that is logged once."""
        if language in self.special:
            return self.special[language]
        if language not in self.default.languages:
            return None
        if self.default.language not in (None, language):
            _warn_once(
                f"quality: {self.default.identity} has no bounds for captions in {language}, and judges them with those"
                f" for {self.default.language}; measure them: vlmdata calibrate --language {language}"
            )
        return self.default

    def search(self, wanted: RetrievalConfig) -> dict[str, Search]:
        """How each model searches in the retrieval check, by identity: as the config says, or as well as it can.

        Galleries that are smaller are more, so that as many images are
        searched. A model that judges several languages is as careful in all
        as it must be in one.
        """
        found: dict[str, Search] = {}
        for judge in (self.default, *self.special.values()):
            before = found.get(judge.identity, Search(judge, wanted.gallery, 0, wanted.max_miss_rate))
            # A gallery that is no larger than top_k would find everything.
            own = judge.trusted.gallery if (judge.trusted.gallery or 0) > wanted.top_k else None
            gallery = min(before.gallery, own or wanted.gallery)
            found[judge.identity] = Search(
                judge=judge,
                gallery=gallery,
                galleries=-(-wanted.galleries * wanted.gallery // gallery),
                max_miss_rate=max(before.max_miss_rate, judge.trusted.max_miss_rate or 0.0),
            )
        return found


def judges(config: QualityConfig) -> Judges:
    """The judges that a config names, without loading a model.

    Raises:
        ConfigError: a model, tag, folder or calibration that is not there, or bounds upside down.
    """
    named = LanguageModel(
        model=config.model,
        pretrained=config.pretrained,
        accept_above=config.accept_above,
        reject_below=config.reject_below,
        calibration=config.calibration,
    )
    named_for = {primary(tag): tag for tag in config.languages}
    if len(named_for) != len(config.languages):
        raise ConfigError(f"quality.languages = {sorted(config.languages)}: one model a language; its regions share it")
    for language, tag in named_for.items():
        _require_known(config.languages[tag], language, f"quality.languages.{tag}")
    unlabelled = primary(config.unlabelled_language)
    default = _judge(named, _main_language(named, unlabelled), "quality.calibration")
    special = {
        language: _judge(config.languages[tag], language, f"quality.languages.{tag}.calibration")
        for language, tag in named_for.items()
    }
    return Judges(default, {**_calibrated(named, default), **special}, unlabelled)


def uncalibrated(config: QualityConfig) -> QualityConfig:
    """The same models with the widest bounds and no calibration to look up: for whoever is about to make one."""
    wide = {"accept_above": 1.0, "reject_below": -1.0, "calibration": None}
    languages = {tag: choice.model_copy(update=wide) for tag, choice in config.languages.items()}
    return config.model_copy(update={**wide, "languages": languages})


def _main_language(choice: LanguageModel, unlabelled: str) -> str:
    """The language whose bounds a model is held to where nothing else is said: one that it knows."""
    known = _known(choice)
    return next((tag for tag in (unlabelled, "en") if tag in known), min(known, default=unlabelled))


def _known(choice: LanguageModel) -> frozenset[str]:
    """The languages that a model knows, under the tags that captions are told by."""
    return frozenset(primary(tag) for tag in describe(choice.model, choice.pretrained).languages)


def _require_known(choice: LanguageModel, language: str, key: str) -> None:
    """Of the models that ship and of open_clip's own it is known what they know; of others the config's word counts."""
    kind = resolve(choice.model, choice.pretrained).kind
    if kind in ("starter", "tag") and language not in (known := _known(choice)):
        raise ConfigError(
            f"{key}: {choice.model} knows {', '.join(sorted(known))}, not {language};"
            " name a model that does, such as xlm-roberta-base-ViT-B-32"
        )


def _calibrated(choice: LanguageModel, default: Judge) -> dict[str, Judge]:
    """The default model with bounds of their own, for the languages that it brings a calibration for."""
    if "auto" not in (choice.accept_above, choice.reject_below):
        return {}
    own = own_calibrations(choice.model, choice.pretrained)
    languages = (default.languages & own.keys()) - {default.language}
    itself = choice.model_copy(update={"calibration": None})
    return {language: _judge(itself, language, "") for language in sorted(languages)}


def _judge(choice: LanguageModel, language: str, key: str) -> Judge:
    found = _calibration(choice, language, key)
    accept = _bound(choice.accept_above, found.accept_above if found else None)
    reject = _bound(choice.reject_below, found.reject_below if found else None)
    if accept < reject:
        raise ConfigError(
            f"quality: reject_below = {reject} is above accept_above = {accept} ({choice.model}, {language});"
            " expected reject_below to be the lower of the two"
        )
    if found and found.borrowed:
        _warn_once(f"quality: {found.note}")
    return Judge(
        model=choice.model,
        pretrained=choice.pretrained,
        identity=describe(choice.model, choice.pretrained).identity,
        languages=_known(choice),
        accept_above=np.float32(accept),
        reject_below=np.float32(reject),
        note=_note(choice, found),
        language=found.language if found and "auto" in (choice.accept_above, choice.reject_below) else None,
        trusted=Trusted(found.gallery, found.max_miss_rate) if found else Trusted(),
        borrowed=found is not None and found.borrowed,
    )


def _calibration(choice: LanguageModel, language: str, key: str) -> Calibration | None:
    """The one that the config names, else the model's own; None if the config gives both bounds itself.

    Raises:
        ConfigError: the named one is not there, or was made for another model or language.
    """
    if choice.calibration is not None:
        found = calibration_in(Path(choice.calibration), choice.model, choice.pretrained)
        if found.language != language:
            raise ConfigError(
                f"{key}: {choice.calibration} was made for captions in {found.language}, and would judge those in"
                f" {language}; name one made with vlmdata calibrate --language {language}"
            )
        return found
    if "auto" in (choice.accept_above, choice.reject_below):
        return thresholds_for(choice.model, choice.pretrained, language)
    return None


def _bound(given: Bound, measured: float | None) -> float:
    """The config's own, else the calibration's, which is there whenever a bound is auto."""
    if given != "auto":
        return given
    if measured is None:
        raise ConfigError("quality: a bound is auto, and there is no calibration; give the bound itself")
    return measured


def _note(choice: LanguageModel, found: Calibration | None) -> str:
    """Where the bounds come from."""
    given = [name for name in ("accept_above", "reject_below") if getattr(choice, name) != "auto"]
    own = f"{' and '.join(given)} as the config gives {'it' if len(given) == 1 else 'them'}"
    if found is None or len(given) == 2:
        return own
    return f"{found.note}; {own}" if given else found.note


@lru_cache(maxsize=512)
def _warn_once(sentence: str) -> None:
    _log.warning(sentence)
