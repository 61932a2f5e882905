"""What of an answer is a caption, and which answers are none."""

from __future__ import annotations

import re

from vlmdata.captioning.prompts import Prompt
from vlmdata.captioning.provider import Fault
from vlmdata.captioning.refusals import refuses, sees_nothing
from vlmdata.captioning.regions import MalformedRegion, parse_regions
from vlmdata.captioning.tidy import tidy
from vlmdata.measure.language import (
    NO_LANGUAGE,
    UNDETERMINED,
    identify,
    knows,
    same_language,
    word_count,
)

JUDGED_FROM = 20
"""Characters; the language of less cannot be told."""
SURE = 0.9
"""Probability from which another language than asked for is believed; measured: no mistakes on short captions."""

_OK = 200
_LONGEST_WORD = 40
_LONGEST_QUOTE = 100
_ECHO_FROM = 20

_QUOTED = re.compile(
    r"\"[^\"\n]*\"|“[^“”\n]*”|„[^„“”\n]*[“”]|«[^«»\n]*»|»[^«»\n]*«|「[^「」\n]*」|『[^『』\n]*』|《[^《》\n]*》"
    r"|(?<!\w)['‘](?:[^'‘’\n]|(?<=\w)['’](?=\w))*['’](?!\w)"
)


def clean(text: str, prompt: Prompt, language: str) -> str | Fault:
    """The caption that an answer holds, or why it holds none.

    A caption is in NFC, without Markdown, lead-in or marks around it, on one line
    unless the prompt asks for several, and comes out unchanged when it is cleaned
    again. Faults: `refused` for a refusal; `transient` for an answer that is empty,
    malformed, or shorter or longer than the prompt's `words`; `permanent` for one
    that is surely in another language than `language` (a BCP 47 tag).
    """
    most = prompt.words[1]
    tidied = tidy(text, lines=prompt.lines, verbatim=_is_verbatim(prompt), longest=most * _LONGEST_WORD)
    if tidied is None:
        return _transient(f"the answer is malformed or far longer than {most} words")
    if not tidied:
        return _transient("the answer is empty")
    return _refusal(tidied, prompt) or _in_form(tidied, prompt, language)


def _in_form(text: str, prompt: Prompt, language: str) -> str | Fault:
    words = text
    if prompt.form == "regions":
        try:
            regions = parse_regions(text)
        except MalformedRegion as error:
            return _transient(f"the answer is malformed: {error}")
        text = "\n".join(map(str, regions))
        words = "\n".join(region.phrase for region in regions)
    return _length(words, prompt) or _echo(text, prompt) or _language(words, prompt, language) or text


def _refusal(text: str, prompt: Prompt) -> Fault | None:
    own = _own_words(text, prompt)
    if sees_nothing(own):
        return _transient(f"the model says that it sees no picture: {_quote(text)}")
    if refuses(own):
        return Fault("refused", _OK, f"a refusal in place of a caption: {_quote(text)}")
    return None


def _length(text: str, prompt: Prompt) -> Fault | None:
    words, (least, most) = word_count(text), prompt.words
    if words < least:
        return _transient(f"the answer is too short: {words} words, expected at least {least}")
    if words > most:
        return _transient(f"the answer is too long: {words} words, expected at most {most}")
    return None


def _echo(text: str, prompt: Prompt) -> Fault | None:
    """Small models give back the example as if it were in the picture."""
    examples = {line for example in prompt.examples for line in example.splitlines() if len(line) >= _ECHO_FROM}
    if examples.intersection(text.splitlines()):
        return _transient("the answer repeats the prompt's example")
    return None


def _language(text: str, prompt: Prompt, language: str) -> Fault | None:
    own = " ".join(_own_words(text, prompt).split())
    if len(own) < JUDGED_FROM or not knows(language):
        return None
    [(found, probability)] = identify([own])
    if probability < SURE or found in {UNDETERMINED, NO_LANGUAGE} or same_language(found, language):
        return None
    return Fault("permanent", _OK, f"asked for {language}, answered in {found} (p {probability:.2f})")


def _own_words(text: str, prompt: Prompt) -> str:
    """What the model says itself: nothing that it quotes, and of a transcription the sentence before it."""
    said = text.partition("\n")[0] if _is_verbatim(prompt) else text
    return _QUOTED.sub("", said)


def _is_verbatim(prompt: Prompt) -> bool:
    """Whether lines of the answer may be transcribed from the picture."""
    return prompt.lines and prompt.form == "text"


def _transient(message: str) -> Fault:
    return Fault("transient", _OK, message)


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_QUOTE else line[: _LONGEST_QUOTE - 1] + "…"
