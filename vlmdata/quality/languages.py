"""Which language each caption is scored in: what it declares, unless the text itself contradicts that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmdata.measure.language import NO_LANGUAGE, UNDETERMINED, identify, knows, primary, same_language
from vlmdata.measure.scripts import scripts_of, writes

JUDGED_FROM = 20
"""Characters; a shorter text is anybody's guess."""
SURE = 0.9
"""Probability from which the identification is believed: on captions, what it gives 0.9 is right."""


@dataclass(frozen=True)
class Told:
    """One caption's language: what it is scored in, what its text says (null: unsure), and whether the two disagree."""

    language: str
    identified: str | None
    contradicted: bool


def tell(declared: Sequence[str | None], texts: Sequence[str], unlabelled: str) -> list[Told]:
    """The languages of captions, in order.

    A caption that declares none has the one that its text surely is in, else `unlabelled`.

    Args:
        declared: BCP 47 tags, null where the source gives none.
        texts: the captions.
        unlabelled: the primary tag of captions that neither say nor show theirs.
    """
    found = [_sure(text, *guess) for text, guess in zip(texts, identify(texts), strict=True)]
    return [_told(tag, text, seen, unlabelled) for tag, text, seen in zip(declared, texts, found, strict=True)]


def _sure(text: str, tag: str, probability: float) -> str | None:
    certain = len(text) >= JUDGED_FROM and probability >= SURE and tag not in {UNDETERMINED, NO_LANGUAGE}
    return tag if certain else None


def _told(declared: str | None, text: str, identified: str | None, unlabelled: str) -> Told:
    if declared is None:
        return Told(identified or unlabelled, identified, False)
    otherwise = identified is not None and not same_language(declared, identified)
    # A short text does not tell its language, but its letters may tell which ones it is not in.
    contradicted = knows(declared) and (otherwise or not writes(declared, scripts_of(text)))
    return Told(primary(declared), identified, contradicted)
