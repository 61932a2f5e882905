"""What is wrong with a config that somebody wrote, in one line that says what to change."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import ValidationError

from vlmdata.config import BuildConfig, LanguageModel, Section, Source


def explain(error: ValidationError, config: type[Section] = BuildConfig) -> str:
    """The first mistake in a kind of config as one line: key, value, what was expected, nearest right key."""
    every = error.errors(include_url=False)
    # A key that is not known may be the one that is missing, misspelt.
    first = next((one for one in every if one["type"] == "extra_forbidden"), every[0])
    path = [str(part) for part in first["loc"]]
    key = ".".join(_without_tags(path))
    if not path:
        return f"expected {_expected(first['msg'])}"
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_nearest(path, config)}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing"
    if first["type"] == "union_tag_not_found":
        return f"the key '{key}.kind' is missing: expected one of {', '.join(_SOURCES)}"
    if first["type"] == "union_tag_invalid":
        return f"{key}.kind = {first['ctx']['tag']!r}: expected one of {', '.join(_SOURCES)}"
    if path[-1] == "[key]" and first["type"] == "literal_error":
        return f"unknown key {'.'.join(path[:-1])!r}: expected {first['ctx']['expected']}"
    if path[-1] == "[key]" and first["type"] == "string_pattern_mismatch":
        return f"{'.'.join(path[:-2])}: the key {first['input']!r}: expected a name like {first['ctx']['pattern']}"
    if path[-1] == "[key]":
        return f"{'.'.join(path[:-2])}: expected text as keys, not {first['input']!r}; put it in quotes"
    same = [one for one in every if ".".join(_without_tags([str(part) for part in one["loc"]])) == key]
    expected = " or ".join(dict.fromkeys(_expected(one["msg"]) for one in same))
    if path[-1] == "api_key_env":
        # Somebody may have put the key itself there.
        return f"{key}: expected the name of an environment variable, such as OPENAI_API_KEY; the key goes into that"
    return f"{key} = {_short(first['input'])}: expected {expected}"


def _expected(message: str) -> str:
    """What pydantic says was expected, in the words of a config file."""
    for prefix in ("Value error, ", "Input should be ", "Tuple should have "):
        message = message.removeprefix(prefix)
    return "a mapping of keys" if message.startswith("a valid dictionary") else message


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(path: list[str], config: type[Section]) -> str:
    """`; did you mean 'x'?` or the keys that are known at that place."""
    known = _known_keys(path[:-1], config)
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {'.'.join([*_without_tags(path[:-1]), close[0]])!r}?"
    return f"; known here: {', '.join(known)}" if known else ""


def _without_tags(path: list[str]) -> list[str]:
    """The keys as a person writes them: without the names that pydantic gives to branches of a union."""
    keys = [part for position, part in enumerate(path) if not (position and path[position - 1] == "source")]
    return [part for part in keys if part != "float" and not part.startswith("literal[")]


_SOURCES: dict[str, type[Section]] = {one.model_fields["kind"].default: one for one in get_args(get_args(Source)[0])}


def _known_keys(path: list[str], config: type[Section]) -> list[str]:
    section = config
    for part in path:
        if part in _SOURCES:
            section = _SOURCES[part]
        elif part == "languages":
            section = LanguageModel
        elif part in section.model_fields:
            annotation = section.model_fields[part].annotation
            # Of a list of sections: the first of its arguments.
            held = next(iter(get_args(annotation)), annotation)
            section = held if isinstance(held, type) and issubclass(held, Section) else section
    return list(section.model_fields)
