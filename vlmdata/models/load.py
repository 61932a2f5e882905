"""From a model's source to an open_clip model, its tokenizer and its preprocessing."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmdata.errors import ConfigError
from vlmdata.models import starter, starter_multilingual
from vlmdata.models.source import BUILT_AS, CONFIG_NAME, HUB_PREFIX, STARTERS, ModelSource, read_config
from vlmdata.models.starter.build import Parts

ESCAPE = f"give a local weights file, or use model: {starter.NAME}, which needs no download"


def load_parts(source: ModelSource) -> Parts:
    """The model of a source on the CPU, in fp32 and evaluation mode.

    Raises:
        ConfigError: the tag is unknown, weights cannot be had, or they do not fit the model.
    """
    if source.kind == "starter":
        return _build_starter(source.model)
    if source.kind == "folder":
        return _load_folder(source)
    if source.kind == "file":
        with _told(f"pretrained: weights {source.pretrained} do not load into {source.model}"):
            return _create(source.model, pretrained=source.pretrained)
    if source.kind == "hub":
        name = source.model.removeprefix(HUB_PREFIX)
        with _told(f"model: {name} could not be loaded from the hub or its cache; {ESCAPE}"):
            return _create(source.model, require_pretrained=True)
    return _load_tag(source)


def _build_starter(name: str) -> Parts:
    parts: Parts = _starter(name).build()
    return parts


def bridged_starter(name: str) -> Parts:
    """A starter before its projections were trained (`bridge.lay_bridge`); what is drawn follows torch's seed.

    Raises:
        ConfigError: a tower is missing, or is not the one that its config names.
    """
    from vlmdata.models.starter.bridge import lay_bridge
    from vlmdata.models.starter.build import check_towers

    config, its = read_config(STARTERS[name].CONFIG), _starter(name)
    check_towers(name, config["towers"], its.tower_hashes())
    parts: Parts = its.untrained(config)
    lay_bridge(parts)
    return parts


def _starter(name: str) -> Any:
    """The module that builds it."""
    if name == starter_multilingual.NAME:
        from vlmdata.models.starter_multilingual import build

        return build
    from vlmdata.models.starter import build as english

    return english


def _load_tag(source: ModelSource) -> Parts:
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    name = source.model.replace("/", "-")
    known = get_pretrained_cfg(name, source.pretrained)
    if not known:
        tags = ", ".join(list_pretrained_tags_by_model(name)) or "none: give a weights file"
        raise ConfigError(f"pretrained: {source.model} has no tag {source.pretrained!r}; its tags: {tags}")
    asked = f"{source.model}:{source.pretrained}"
    looked = known.get("hf_hub") or known.get("url")
    problem = f"pretrained: weights of {asked} are neither in the cache nor to be had from {looked}"
    with _told(f"{problem}; {ESCAPE}"):
        quick = wants_quick_gelu(name, str(source.pretrained))
        return _create(name, pretrained=source.pretrained, force_quick_gelu=quick)


def wants_quick_gelu(name: str, tag: str) -> bool:
    """Whether a tag's weights were trained with QuickGELU, as all of OpenAI's were.

    They compute rubbish without it, and open_clip only warns.
    """
    from open_clip.pretrained import get_pretrained_cfg

    return bool(get_pretrained_cfg(name, tag).get("quick_gelu"))


def _load_folder(source: ModelSource) -> Parts:
    """A folder as open_clip saves it, with a Hugging Face text tower's config beside it if it has one."""
    folder = Path(source.model)
    config = read_config(folder / CONFIG_NAME)
    if BUILT_AS in config:
        return _load_trained_starter(config[BUILT_AS], source)
    text = config.get("model_cfg", {}).get("text_cfg", {})
    changes: dict[str, Any] = {}
    if text.get("hf_model_name") and (folder / "config.json").is_file():
        # Weights come from the folder; from the hub the tower needs its shape only.
        changes["text_cfg"] = {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}
    with _told(f"model: folder {folder} does not load as an open_clip model"):
        return _create(f"local-dir:{folder}", require_pretrained=True, **changes)


def _load_trained_starter(name: object, source: ModelSource) -> Parts:
    """A starter that was trained further: its parts, with all weights from the folder."""
    from safetensors.torch import load_file

    if name not in STARTERS:
        raise ConfigError(f"model: {source.config}: {BUILT_AS} = {name!r}: expected one of {', '.join(STARTERS)}")
    with _told(f"model: folder {source.model} does not load as {name}"):
        parts = _build_starter(str(name))
        parts.model.load_state_dict(load_file(str(source.weights)))
    return parts


def _create(name: str, **options: Any) -> Parts:
    import open_clip

    with warnings.catch_warnings():
        # force_quick_gelu is what this warning asks for, and it fires all the same.
        warnings.filterwarnings("ignore", message="QuickGELU mismatch")
        model = open_clip.create_model(name, precision="fp32", device="cpu", weights_only=True, **options)
    return Parts(model.eval(), open_clip.get_tokenizer(name), dict(model.visual.preprocess_cfg))


@contextlib.contextmanager
def _told(problem: str) -> Iterator[None]:
    """Turn what the loading libraries raise into one line that says what to change.

    open_clip, transformers, safetensors and torch share no error class, and
    wrap each other's; what they have in common is listed here.
    """
    import pickle

    from safetensors import SafetensorError

    expected = (
        RuntimeError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AssertionError,
        pickle.UnpicklingError,
        SafetensorError,
    )
    try:
        with _unlogged():
            yield
    except expected as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{problem} ({type(error).__name__}: {reason})") from error


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Keep still what logs each attempt at a download, where the one line that matters follows."""
    hub, root = logging.getLogger("huggingface_hub"), logging.getLogger()
    level = hub.level
    hub.setLevel(logging.CRITICAL)
    root.addFilter(_not_by_open_clip)
    try:
        yield
    finally:
        hub.setLevel(level)
        root.removeFilter(_not_by_open_clip)


def _not_by_open_clip(record: logging.LogRecord) -> bool:
    # It logs by the root logger's own name.
    return "open_clip" not in record.pathname
