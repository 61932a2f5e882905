"""What the multilingual starter was measured to do, as tables of its card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starter.evaluation import Measured, measure
from starter.features import Towers
from starter.material import LANGUAGES, UNSEEN, Material
from starter.training import Item, pairs_of
from vlmdata.models.calibration import Bands, calibrate

MIN_AUC = 0.7
"""A language is listed if matched stamps outscore shuffled ones this often."""


@dataclass(frozen=True)
class Results:
    """What a model was measured to do.

    Attributes:
        drawings: held-out openclipart by title, in English.
        emoji: held-out emoji by name, a language each.
        stamps: stamps by description, a language each.
    """

    drawings: Measured
    emoji: dict[str, Measured]
    stamps: dict[str, Measured]

    @classmethod
    def of(cls, model: Any, towers: Towers, material: Material) -> Results:
        """Measure a model on everything that was put aside."""

        def on(items: list[Item]) -> Measured:
            return measure(model, pairs_of(towers, material.pictures, items, 1), 0)

        return cls(
            drawings=on([(drawing.key, [drawing.title]) for drawing in material.held]),
            emoji={language: on(material.held_emoji_in(language)) for language in LANGUAGES},
            stamps={language: on(material.stamps_in(language)) for language in [*sorted(LANGUAGES), *UNSEEN]},
        )

    def listed(self) -> list[str]:
        """The languages that the model is said to know: trained on, and measured to work."""
        return sorted(one for one in LANGUAGES if self.stamps[one].auc >= MIN_AUC)

    def bands(self) -> dict[str, Bands]:
        """Thresholds of each listed language, found on the held-out emoji."""
        return {one: calibrate(self.emoji[one].matched, self.emoji[one].shuffled) for one in self.listed()}

    def held_out_table(self) -> str:
        """Rows of openclipart and of the emoji in every language."""
        rows = [self.drawings.row("openclipart, title, en")]
        return "\n".join([*rows, *(one.row(f"emoji, name, {language}") for language, one in self.emoji.items())])

    def stamp_table(self, only: tuple[str, ...] = ()) -> str:
        """Rows of the stamps: trained languages first, then those that were never trained on."""
        return "\n".join(
            one.row(f"{language} (not trained)" if language in UNSEEN else language)
            for language, one in self.stamps.items()
            if not only or language in only
        )

    def band_table(self) -> str:
        """Each listed language's thresholds, and what they do to the stamps, which they were not found on."""
        return "\n".join(self._band_row(language, bands) for language, bands in self.bands().items())

    def _band_row(self, language: str, bands: Bands) -> str:
        return f"{_shares(language, bands, self.stamps[language])} {self.emoji[language].trusted(bands).gallery} |"


def _shares(language: str, bands: Bands, on: Measured) -> str:
    accepted = [(scores > bands.accept_above).mean() for scores in (on.matched, on.shuffled)]
    rejected = [(scores < bands.reject_below).mean() for scores in (on.matched, on.shuffled)]
    shares = " | ".join(f"{right:.1%} / {wrong:.1%}" for right, wrong in (accepted, rejected))
    return f"| {language} | {bands.n} | {bands.accept_above} | {bands.reject_below} | {shares} |"
