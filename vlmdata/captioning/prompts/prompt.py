"""A prompt, ready to be asked in a language."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from vlmdata.captioning.prompts.names import english_name, tag_of
from vlmdata.errors import ConfigError

SLOT = "{language}"

LOW_RESOLUTION = "The picture is small and coarse: say only what can be made out for certain, and leave out the rest."

Form = Literal["text", "regions"]
"""What an answer is: words, or a phrase and its box on each line."""

# RFC 5646, 2.1, as far as people write it: a language, then script, region, variants.
_TAG = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class Prompt:
    """What is asked, and the bounds within which an answer is one.

    `words` are the fewest and the most words of an answer (`word_count`), `lines`
    says that it may have several lines, `digest` are 8 hex digits of the sha256 of
    the text it came from. `slotted` is false for a person's own words, in which
    braces mean nothing.
    """

    name: str
    version: int
    digest: str
    body: str
    languages: tuple[str, ...] | None
    max_tokens: int
    words: tuple[int, int]
    lines: bool = False
    form: Form = "text"
    examples: tuple[str, ...] = ()
    low_resolution: str = LOW_RESOLUTION
    slotted: bool = True

    @property
    def identity(self) -> str:
        """Such as `alt-text@1:3fa9c1d2`: an edited file is another prompt, even if its version was left alone."""
        return f"{self.name}@{self.version}:{self.digest}"

    def render(self, language: str, low_resolution: bool) -> str:
        """The text that is sent, asking for an answer in `language` (a BCP 47 tag)."""
        parts = [self.body, self._few_shot(), self.low_resolution if low_resolution else ""]
        text = "\n".join(part for part in parts if part)
        # Not str.format: any other brace is the author's own.
        return text.replace(SLOT, english_name(language)) if self.slotted else text

    def _few_shot(self) -> str:
        if not self.examples:
            return ""
        head = f"For its form, not for what it says or the language it is in (yours is {SLOT}), an example:"
        return "\n".join([head, *self.examples])


def check_language(prompt: Prompt, tag: str) -> None:
    """Say that the prompt cannot be asked in this language.

    Raises:
        ConfigError: the tag is none, or not of a language that the prompt lists.
    """
    if not _TAG.fullmatch(tag):
        near = tag_of(tag)
        raise ConfigError(f"caption.language = {tag!r}: expected a BCP 47 tag such as {near or 'en, de or zh-TW'}")
    if prompt.languages is not None and not _listed(prompt.languages, tag):
        raise ConfigError(
            f"caption.language = {tag!r}: the prompt {prompt.name!r} is for {', '.join(prompt.languages)};"
            " choose one of these, or another caption.prompt"
        )


def _listed(languages: tuple[str, ...], tag: str) -> bool:
    """A language stands for its varieties: `zh` for `zh-TW`, `pt-BR` for itself alone."""
    asked = tag.lower().replace("_", "-")
    return any(f"{asked}-".startswith(f"{listed.lower()}-") for listed in languages)
