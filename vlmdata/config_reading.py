"""Configs from YAML files and from `--set`, checked; paths are made absolute where they were written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import ValidationError

from vlmdata.config import BuildConfig, Section
from vlmdata.config_mistakes import explain
from vlmdata.errors import ConfigError

C = TypeVar("C", bound=Section)
Keys = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Kind(Generic[C]):
    """A kind of config file.

    Attributes:
        model: What it is checked by.
        keys: Some keys to name to who wrote none.
        example: An override.
        paths: Keys of paths; relative ones are taken from where they were written.
        names_or_paths: Keys whose value is a path only if it begins like one.
        start: What to tell a person whose file is not there.
    """

    model: type[C]
    keys: str
    example: str
    paths: Keys
    names_or_paths: Keys
    start: str

    def read(self, path: str | os.PathLike[str], overrides: Iterable[str] = (), **unsaid: Any) -> C:
        """Read a file; `overrides` are `dotted.key=value` with YAML values, `unsaid` is what the file need not say.

        Relative paths in the file are taken from the folder that holds it, those
        in `overrides` from the working folder.

        Raises:
            ConfigError: one line naming the key, the value and what was expected.
        """
        file = Path(path)
        raw = {**unsaid, **_read_yaml(file, self)}
        _absolute_paths(raw, file.parent.resolve(), self)
        return self.parse(raw, overrides, where=str(path))

    def parse(self, raw: Any, overrides: Iterable[str] = (), where: str = "config") -> C:
        """Validate a mapping; `where` is named in the error."""
        if not isinstance(raw, dict):
            raise ConfigError(f"{where}: expected a mapping of keys such as {self.keys}")
        for override in overrides:
            _set(raw, override, self)
        try:
            return self.model.model_validate(raw)
        except ValidationError as error:
            # Keys come from people, too: one may hold a line break.
            raise ConfigError(" ".join(f"{where}: {explain(error, self.model)}".split())) from error


BUILD = Kind(
    BuildConfig,
    keys="dataset, store and source",
    example="filter.min_side=256",
    paths=(
        ("store",),
        ("opt_out",),
        ("source", "path"),
        ("source", "captions"),
        ("quality", "calibration"),
        ("export", "path"),
        ("export", "decontaminate", "lists"),
    ),
    names_or_paths=(("quality", "model"), ("quality", "pretrained"), ("caption", "prompt")),
    start="`vlmdata init` writes one to start from",
)


def load_config(path: str | os.PathLike[str], overrides: list[str] | None = None) -> BuildConfig:
    """Read a config file; `overrides` are `dotted.key=value` with YAML values.

    Relative paths in the file are taken from the folder that holds it, those
    in `overrides` from the working folder.

    Raises:
        ConfigError: one line naming the key, the value and what was expected.
    """
    return BUILD.read(path, overrides or [], store=BuildConfig.model_fields["store"].default)


def _read_yaml(file: Path, kind: Kind[Any]) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such config file; {kind.start}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as text ({error})") from error
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{file}: not valid YAML: {line}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: expected a mapping of keys such as {kind.keys}")
    return raw


def parse_config(raw: Any, where: str = "config") -> BuildConfig:
    """Validate a mapping; `where` is named in the error."""
    return BUILD.parse(raw, where=where)


def with_overrides(config: BuildConfig, overrides: Iterable[str]) -> BuildConfig:
    """The config with other values; `overrides` are as in `load_config`.

    Raises:
        ConfigError: one line naming the key, the value and what was expected.
    """
    return BUILD.parse(config.model_dump(mode="json"), overrides, where="--set")


def _set(raw: dict[str, Any], override: str, kind: Kind[Any]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r}: expected key=value, such as {kind.example}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from error
    *parents, leaf = key.strip().split(".")
    given: dict[str, Any] = {leaf: value}
    for parent in reversed(parents):
        given = {parent: given}
    _absolute_paths(given, Path.cwd(), kind)
    for parent in parents:
        if raw.get(parent) is None:
            raw[parent] = {}
        raw, given = raw[parent], given[parent]
        if not isinstance(raw, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} holds a plain value, and no keys")
    raw[leaf] = given[leaf]


def _absolute_paths(raw: dict[str, Any], base: Path, kind: Kind[Any]) -> None:
    paths = (*kind.paths, *_language_keys(raw, "calibration"))
    for *parents, leaf in (*paths, *kind.names_or_paths, *_language_keys(raw, "model", "pretrained")):
        section: Any = raw
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if isinstance(section, dict) and leaf in section:
            section[leaf] = _resolved(section[leaf], base, surely=(*parents, leaf) in paths)


def _resolved(value: Any, base: Path, surely: bool) -> Any:
    """The path as an absolute one; what may as well be a name only if it begins like a path."""
    if isinstance(value, list):
        return [_resolved(one, base, surely) for one in value]
    if not isinstance(value, str) or "://" in value:
        return value
    looks_like_one = surely or value.startswith(("./", "../", "~"))
    return os.path.normpath(base / Path(value).expanduser()) if looks_like_one else value


def _language_keys(raw: dict[str, Any], *leaves: str) -> list[tuple[str, ...]]:
    quality = raw.get("quality")
    languages = quality.get("languages") if isinstance(quality, dict) else None
    tags = languages if isinstance(languages, dict) else {}
    return [("quality", "languages", tag, leaf) for tag in tags for leaf in leaves]
