"""What reason codes mean to people, and in which unit their measured values are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Meaning:
    """A code in words.

    Attributes:
        title: A few words.
        unit: Of value and bound: px, bits, score, …; empty: there is none.
    """

    title: str
    unit: str = ""


_MEANINGS = {
    "missing_file": Meaning("Named, but not there"),
    "unreadable": Meaning("Cannot be read"),
    "forgotten": Meaning("Withdrawn"),
    "opted_out": Meaning("Opted out"),
    "empty_file": Meaning("File without bytes"),
    "not_an_image": Meaning("Not a picture"),
    "unsupported_format": Meaning("Format not supported"),
    "truncated": Meaning("Cut short"),
    "corrupt": Meaning("Damaged"),
    "too_many_pixels": Meaning("Too many pixels", "px"),
    "out_of_memory": Meaning("Takes too much memory to decode"),
    "decoder_crashed": Meaning("Decoder crashed on it"),
    "decode_timeout": Meaning("Took too long to decode"),
    "too_small": Meaning("Too small", "px"),
    "aspect_ratio": Meaning("Too long or too tall", "× longer"),
    "near_duplicate": Meaning("Near-duplicate", "bits"),
    "no_caption": Meaning("Has no caption"),
    "caption_transient": Meaning("Captioner failed, may pass"),
    "caption_permanent": Meaning("Captioner failed for good"),
    "caption_refused": Meaning("Captioner refused"),
    "caption_budget": Meaning("Nothing left to spend on it"),
    "empty_caption": Meaning("Empty caption"),
    "caption_too_long": Meaning("Caption too long", "characters"),
    "repeated_caption": Meaning("Says the same twice"),
    "misaligned": Meaning("Caption does not match", "score"),
    "borderline": Meaning("Between the two bounds", "score"),
    "outscored": Meaning("Another caption fits better", "score"),
    "unverified_language": Meaning("No model knows the language"),
    "language_contradicted": Meaning("Text is in another language than it says"),
    "not_embedded": Meaning("Could not be embedded"),
    "contaminated": Meaning("Picture of an evaluation set"),
    "split_conflict": Meaning("Close to samples of two splits"),
    "below_top": Meaning("Not among the best by score", "score"),
    "weight": Meaning("Not drawn"),
    "cap": Meaning("More than its group may have"),
    "export_failed": Meaning("Could not be exported"),
}


def meaning(code: str) -> Meaning:
    """Of a code; one that is not listed speaks for itself."""
    return _MEANINGS.get(code) or Meaning(code.replace("_", " ").capitalize())
