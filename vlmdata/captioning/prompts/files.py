"""Prompts in Markdown files: front matter between two lines of `---`, then what is asked.

---
name: alt-text
version: 1
max_tokens: 120
words: [2, 60]
---
Describe this picture in one plain {language} sentence, as its alt text would.
"""

from __future__ import annotations

import difflib
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from vlmdata.captioning.prompts.prompt import LOW_RESOLUTION, SLOT, Form, Prompt
from vlmdata.errors import ConfigError

FOLDER = Path(__file__).parent
LARGEST_FILE = 64 << 10
"""Bytes."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_LIKE_A_PATH = re.compile(r"[\w./\\~:-]*(?:[/\\]|\.\w)[\w./\\~-]*", re.ASCII)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_TAG = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"

OWN_WORDS_TOKENS = 300
OWN_WORDS_BOUNDS = (1, 1_000)
"""A person's own words set no bounds; these only keep out what is no answer."""


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: PositiveInt
    languages: list[str] | None = None
    max_tokens: PositiveInt
    words: tuple[PositiveInt, PositiveInt]
    lines: bool = False
    form: Form = "text"
    examples: list[str] = []
    low_resolution: str = LOW_RESOLUTION

    @field_validator("languages")
    @classmethod
    def _tags(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not (value and all(re.match(_TAG, tag) for tag in value)):
            raise ValueError("null or a list of BCP 47 tags such as [en, de]")
        return value

    @field_validator("words")
    @classmethod
    def _ordered(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] > value[1]:
            raise ValueError("[least, most] with least no larger than most")
        return value


def load_prompt(spec: str) -> Prompt:
    """The prompt of a shipped name, of a path that ends in .md, or of words that are neither.

    Words are asked as they stand: no slot, and their braces are braces.

    Raises:
        ConfigError: one line; the name is not known, or the file cannot be used.
    """
    text = spec.strip()
    if text.endswith(".md"):
        return _from_file(Path(text).expanduser())
    if _NAME.fullmatch(text):
        return _shipped(text)
    if not text or not any(letter.isalnum() for letter in text):
        raise ConfigError(f"caption.prompt = {spec!r}: expected a shipped prompt, a .md file, or words")
    if len(text.encode("utf-8", "replace")) > LARGEST_FILE:
        raise ConfigError(f"caption.prompt: expected at most {LARGEST_FILE >> 10} KiB of words")
    if _LIKE_A_PATH.fullmatch(text):
        raise ConfigError(f"caption.prompt = {spec!r}: looks like a path; expected one that ends in .md")
    return _own_words(text)


def shipped_prompts() -> list[str]:
    """Names of the prompts that come with the package, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.md"))


def _own_words(text: str) -> Prompt:
    return Prompt("words", 0, _digest(text), text, None, OWN_WORDS_TOKENS, OWN_WORDS_BOUNDS, slotted=False)


def _shipped(name: str) -> Prompt:
    shipped = shipped_prompts()
    if name in shipped:
        return _from_file(FOLDER / f"{name}.md")
    near = difflib.get_close_matches(name.lower(), shipped, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"shipped are {', '.join(shipped)}"
    raise ConfigError(f"caption.prompt = {name!r}: no such prompt; {hint} (or a .md file, or the words themselves)")


def _from_file(file: Path) -> Prompt:
    text = _read(file)
    match = _FRONT_MATTER.match(text)
    if not match:
        raise ConfigError(f"{file}: expected front matter between two lines of ---, then the prompt")
    front = _front_matter(file, match[1])
    body = text[match.end() :].strip()
    _check_body(file, body, front)
    return Prompt(
        front.name,
        front.version,
        _digest(text),
        body,
        None if front.languages is None else tuple(front.languages),
        front.max_tokens,
        front.words,
        front.lines,
        front.form,
        tuple(front.examples),
        front.low_resolution.strip(),
    )


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > LARGEST_FILE or not file.is_file():
            raise ConfigError(f"caption.prompt = {str(file)!r}: expected a file of at most {LARGEST_FILE >> 10} KiB")
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"caption.prompt = {str(file)!r}: no such file; correct the path") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"caption.prompt = {str(file)!r}: cannot be read as text ({_one_line(error)})") from error
    # A checkout on Windows must not make another prompt of it.
    return text.replace("\r\n", "\n")


def _front_matter(file: Path, text: str) -> _FrontMatter:
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{file}: the front matter is not valid YAML: {_one_line(error)}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: expected keys such as name, version, max_tokens and words in the front matter")
    try:
        return _FrontMatter.model_validate({str(key): value for key, value in raw.items()})
    except ValidationError as error:
        raise ConfigError(_one_line(f"{file}: {_explain(error)}")) from error


def _explain(error: ValidationError) -> str:
    """The first mistake: key, value and what was expected."""
    every: list[Any] = error.errors(include_url=False)
    first = next((one for one in every if one["type"] == "extra_forbidden"), every[0])
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known here: {', '.join(_FrontMatter.model_fields)}"
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return f"the key {key!r} is missing"
    return f"{key} = {_short(first['input'])}: expected {_expected(key, first['msg'])}"


def _expected(key: str, message: str) -> str:
    if key == "words":
        return "[least, most], two whole numbers from 1 on, the first no larger"
    if key == "languages":
        # YAML reads `no`, Norwegian, as false.
        return "null or a list of BCP 47 tags such as [en, de], in quotes where YAML reads another thing ('no')"
    return message.removeprefix("Value error, ").removeprefix("Input should be ")


def _check_body(file: Path, body: str, front: _FrontMatter) -> None:
    if not body:
        raise ConfigError(f"{file}: nothing is asked; expected the prompt below the front matter")
    if SLOT not in body and (front.languages is None or len(front.languages) > 1):
        raise ConfigError(
            f"{file}: the prompt does not say {SLOT}, and is for more than one language;"
            " put the slot where the language belongs, or list one language"
        )


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
