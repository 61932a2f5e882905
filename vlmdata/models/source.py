"""Where a model's weights are, and a name for their content; nothing here loads torch.

Four kinds of model reach the same seam: the starters, an open_clip name with a
tag or a local file, `hf-hub:owner/name`, and a folder that holds
`open_clip_config.json` and weights.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from vlmdata.errors import ConfigError
from vlmdata.models import starter, starter_multilingual
from vlmdata.models.languages import languages_of

HUB_PREFIX = "hf-hub:"
STARTERS = {module.NAME: module for module in (starter, starter_multilingual)}
"""The models that ship, by name."""
CONFIG_NAME = "open_clip_config.json"
BUILT_AS = "built_as"
"""In a folder's config: the starter that its weights were trained from, whose parts open_clip alone cannot build."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
# open_clip's own order, so that a folder means here what it means there.
PREFERRED_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
Kind = Literal["starter", "tag", "file", "hub", "folder"]


@dataclass(frozen=True)
class ModelSource:
    """A model as asked for, and the local files that decide what it computes."""

    kind: Kind
    model: str
    pretrained: str | None
    weights: Path | None
    config: Path | None

    @property
    def folder(self) -> Path | None:
        """Where files that belong to these weights (a calibration) may lie."""
        return self.weights.parent if self.weights else None


@dataclass(frozen=True)
class Description:
    """What is known of a model without loading it."""

    identity: str
    languages: frozenset[str]


def resolve(model: str, pretrained: str | None = None) -> ModelSource:
    """Find out which kind of model is meant, and its local files if it has any.

    Raises:
        ConfigError: the model's name is unknown, a tag is missing, or a folder lacks its files.
    """
    if model in STARTERS:
        return ModelSource("starter", model, None, STARTERS[model].WEIGHTS, STARTERS[model].CONFIG)
    if model.startswith(HUB_PREFIX):
        return ModelSource("hub", model, None, None, None)
    # A folder that happens to be called ViT-B-32 does not hide the model of that name.
    if model and model not in built_in_configs() and Path(model).is_dir():
        return _folder(Path(model))
    return _built_in(model, pretrained)


def model_identity(model: str, pretrained: str | None = None) -> str:
    """A name that changes when the weights or the config do; a part of cache keys.

    Local models are named by the content of their files, wherever these lie;
    downloaded ones by name and tag, which their publishers do not move.
    """
    source = resolve(model, pretrained)
    if source.kind == "hub":
        return model
    if source.weights is None:
        # open_clip takes laion2b-s34b-b79k and laion2b_s34b_b79k for one tag.
        return f"{model}:{str(pretrained).lower().replace('-', '_')}"
    label = Path(model).name if source.kind == "folder" else model
    return f"{label}@{_content(source)}"


def describe(model: str, pretrained: str | None = None) -> Description:
    """Identity and languages of a model, read from its config without loading torch.

    A hub model's languages are guessed from its name until it is loaded.
    """
    return Description(model_identity(model, pretrained), languages(resolve(model, pretrained)))


def languages(source: ModelSource) -> frozenset[str]:
    """The languages that the config declares, else those of its text tower."""
    if source.config is None:
        return languages_of(source.model)
    config = read_config(source.config)
    declared = config.get("languages")
    if declared:
        return frozenset(declared)
    text = config.get("model_cfg", config).get("text_cfg", {})
    return languages_of(source.model, text.get("hf_model_name"), text.get("hf_tokenizer_name"))


def read_config(path: Path) -> dict[str, Any]:
    """A model's JSON config.

    Raises:
        ConfigError: it is not a JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"model: {path} cannot be read as JSON ({error}); expected an open_clip config") from error
    if not isinstance(config, dict):
        raise ConfigError(f"model: {path} holds a {type(config).__name__}; expected an open_clip config object")
    return config


def _folder(folder: Path) -> ModelSource:
    config = folder / CONFIG_NAME
    if not config.is_file():
        raise ConfigError(f"model: folder {folder} has no {CONFIG_NAME}; put the model's open_clip config there")
    candidates = sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES)
    by_name = {path.name: path for path in candidates}
    preferred = [by_name[name] for name in PREFERRED_WEIGHTS if name in by_name]
    if not preferred and len(candidates) != 1:
        found = ", ".join(by_name) or "none"
        raise ConfigError(f"model: folder {folder} needs one weights file, {PREFERRED_WEIGHTS[0]}; found {found}")
    return ModelSource("folder", str(folder), None, (preferred or candidates)[0], config)


def _built_in(model: str, pretrained: str | None) -> ModelSource:
    configs = built_in_configs()
    name = model.replace("/", "-")
    if name not in configs:
        near = difflib.get_close_matches(name, [*STARTERS, *configs], n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(near)}" if near else f"for example {starter.NAME} or ViT-B-32"
        raise ConfigError(f"model: {model!r} is no open_clip model, no {HUB_PREFIX} name and no folder; {hint}")
    if pretrained is None:
        raise ConfigError(f"pretrained: {model} needs a tag (such as openai) or a weights file; none was given")
    path = Path(pretrained)
    if path.is_file():
        return ModelSource("file", model, pretrained, path, configs[name])
    if path.suffix in WEIGHT_SUFFIXES or path.parent != Path("."):
        raise ConfigError(f"pretrained: weights file {pretrained} is not there; expected a {WEIGHT_SUFFIXES[0]} file")
    return ModelSource("tag", model, pretrained, None, configs[name])


@lru_cache(maxsize=1)
def built_in_configs() -> dict[str, Path]:
    """open_clip's own model configs by name, found without importing it."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("model: open_clip is not installed; install open_clip_torch")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model_configs"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def _content(source: ModelSource) -> str:
    paths = [path for path in (source.weights, source.config) if path]
    if source.kind == "folder":
        # A tokenizer or a tower's config beside the weights decides as much as they do;
        # a calibration changes nothing that the model computes.
        beside = sorted(path for path in Path(source.model).iterdir() if path.suffix in (".json", ".txt", ".model"))
        paths += [path for path in beside if path not in paths and not path.name.startswith("calibration.")]
    return content_hash(paths)


def content_hash(paths: list[Path]) -> str:
    """A short name for what is in these files, in this order."""
    return hashlib.sha256("".join(file_hash(path) for path in paths).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """The sha256 of a file's bytes, read once for as long as size and time stay."""
    stat = path.stat()
    return _file_hash(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
