"""What is asked about each picture, and under which name its answer is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from vlmdata.captioning.prompts import Prompt, check_language, load_prompt
from vlmdata.captioning.provider import Question
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError
from vlmdata.schema import AGAIN, MADE

_WARMER = 0.7
"""Temperature of a caption that is asked for again: at 0 a model says the same again."""


@dataclass(frozen=True)
class Asker:
    """One config's questions in one language. `take` 0 asks for a picture's first caption, 1 for another one."""

    config: CaptionConfig
    prompt: Prompt
    language: str
    take: int = 0

    @classmethod
    def of(cls, config: CaptionConfig, take: int = 0, language: str | None = None) -> Asker:
        """From a config; in the first of its languages, unless another is named.

        Raises:
            ConfigError: there is no such prompt, or it does not know the language.
        """
        prompt, language = load_prompt(config.prompt), language or config.languages[0]
        check_language(prompt, language)
        return cls(config, prompt, language, take)

    def is_small(self, shorter_side: int) -> bool:
        """Whether a picture invites invented detail."""
        return shorter_side < self.config.low_resolution_below

    def question(self, small: bool) -> Question:
        """What is asked about a picture."""
        config = self.config
        return Question(
            model=str(config.model),
            prompt=self.prompt.render(self.language, small),
            max_tokens=config.max_tokens or self.prompt.max_tokens,
            temperature=max(config.temperature, _WARMER) if self.take else config.temperature,
            language=self.language,
        )

    def settings(self) -> dict[str, object]:
        """What decides an answer besides the picture."""
        question = self.question(small=False)
        return {
            "prompt": self.prompt.identity,
            "language": question.language,
            "model": question.model,
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "max_side": self.config.max_side,
            "low_resolution_below": self.config.low_resolution_below,
            "take": self.take,
        }

    def keys(self, contents: Sequence[str]) -> list[str]:
        """The journal's name for each picture (its sha256) and this question: 32 hex digits."""
        return keys_of(self.settings(), contents)

    def origin(self, small: bool) -> str:
        """Where a caption comes from, as it is written beside the caption."""
        mark = "|low-resolution" if small else ""
        again = f"{AGAIN}{self.take}" if self.take else ""
        return f"{MADE}{self.config.model}|{self.prompt.identity}{mark}{again}"


def askers(config: CaptionConfig, take: int = 0) -> list[Asker]:
    """One for each language of a config.

    Raises:
        ConfigError: there is no such prompt, or it does not know one of the languages, or asks the same in two.
    """
    found = [Asker.of(config, take, language) for language in config.languages]
    if len({asker.question(small=False).prompt for asker in found}) < len(found):
        # Each picture would be paid for twice, and one of the answers be in the wrong language.
        raise ConfigError(
            f"caption.language = {list(config.languages)}: the prompt {found[0].prompt.name!r} asks the same in two of"
            " these; put {language} into a prompt file, or ask for one language"
        )
    return found


def settings_of(asked_by: Sequence[Asker]) -> object:
    """What decides their answers; of one alone as it was before there could be several, for checkpoints' names."""
    settings = [asker.settings() for asker in asked_by]
    return settings[0] if len(settings) == 1 else settings


def keys_of(settings: Mapping[str, object], contents: Sequence[str]) -> list[str]:
    """The same from an asker's settings alone, as checkpoints keep them."""
    asked = json.dumps(settings, sort_keys=True)
    return [sha256(f"{content}\n{asked}".encode()).hexdigest()[:32] for content in contents]
