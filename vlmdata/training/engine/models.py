"""The model that learns: built or loaded, and saved so that it loads again wherever a model is named."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlmdata.errors import ConfigError
from vlmdata.models.load import bridged_starter, load_parts, wants_quick_gelu
from vlmdata.models.source import (
    BUILT_AS,
    CONFIG_NAME,
    PREFERRED_WEIGHTS,
    STARTERS,
    WEIGHT_SUFFIXES,
    built_in_configs,
    read_config,
    resolve,
)
from vlmdata.models.starter.build import Parts
from vlmdata.training.config import TrainConfig
from vlmdata.training.engine.adapters import add_adapters, merged
from vlmdata.training.engine.checkpoints import unreadable

WEIGHTS = PREFERRED_WEIGHTS[0]
BRIDGE = "bridge"
"""As `pretrained` of a starter: what its projections were before they were trained."""
SIGLIP_SCALE, SIGLIP_BIAS = 10.0, -10.0
"""Where a sigmoid loss starts (Zhai et al. 2023, 2303.15343)."""


@dataclass(frozen=True)
class Learner:
    """A model and what is needed to save it.

    Attributes:
        parts: model, tokenizer, preprocessing.
        config: what goes into `open_clip_config.json`.
        from_scratch: whether its weights are new.
        adapters: layers that have an adapter beside them.
    """

    parts: Parts
    config: dict[str, Any]
    from_scratch: bool
    adapters: int = 0


def learner(config: TrainConfig) -> Learner:
    """The config's model on the CPU, in fp32. New weights follow from the seed.

    Raises:
        ConfigError: the model or its weights cannot be had, or do not fit each other.
    """
    torch.manual_seed(config.seed)
    from_scratch = _is_from_scratch(config)
    if from_scratch:
        parts, said = _new(config.model), _said_of_new(config.model)
    elif config.model in STARTERS and config.pretrained is not None:
        parts, said = _bridged(config), _said(config)
    else:
        source = resolve(config.model, config.pretrained)
        parts, said = load_parts(source), _said(config)
    if config.loss == "siglip":
        said = _with_bias(parts.model, said, from_scratch=from_scratch)
    adapters = add_adapters(parts.model, config.lora) if any(one.text == "lora" for one in config.stages) else 0
    return Learner(parts, {**said, "preprocess_cfg": _json(parts.preprocess)}, from_scratch, adapters)


def _bridged(config: TrainConfig) -> Parts:
    if config.pretrained != BRIDGE:
        raise ConfigError(
            f"pretrained = {config.pretrained!r}: {config.model} ships one set of weights; leave it out, or say"
            f" {BRIDGE} for projections that nothing has trained yet"
        )
    return bridged_starter(config.model)


def _is_from_scratch(config: TrainConfig) -> bool:
    if config.pretrained is not None or config.model in STARTERS:
        return False
    folder = Path(config.model)
    if config.model not in built_in_configs() and folder.is_dir():
        return not any(path.suffix in WEIGHT_SUFFIXES for path in folder.iterdir())
    return config.model.replace("/", "-") in built_in_configs()


def _new(model: str) -> Parts:
    import open_clip

    name = model if model.replace("/", "-") in built_in_configs() else f"local-dir:{model}"
    # That its weights are new is what is wanted.
    logging.disable(logging.WARNING)
    try:
        net = open_clip.create_model(name, precision="fp32", device="cpu", load_weights=False, pretrained_text=False)
    except (RuntimeError, ValueError, KeyError, TypeError, AssertionError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"model: {model} cannot be built ({type(error).__name__}: {reason})") from error
    finally:
        logging.disable(logging.NOTSET)
    return Parts(net, open_clip.get_tokenizer(name), dict(net.visual.preprocess_cfg))


def _said_of_new(model: str) -> dict[str, Any]:
    if model.replace("/", "-") in built_in_configs():
        return {"model_cfg": read_config(built_in_configs()[model.replace("/", "-")])}
    return read_config(Path(model) / CONFIG_NAME)


def _said(config: TrainConfig) -> dict[str, Any]:
    source = resolve(config.model, config.pretrained)
    if source.kind == "starter":
        return {**read_config(STARTERS[config.model].CONFIG), BUILT_AS: config.model}
    if source.kind == "folder":
        return read_config(Path(source.model) / CONFIG_NAME)
    if source.kind == "hub":
        from open_clip.factory import download_pretrained_from_hf

        name = source.model.partition(":")[2]
        return read_config(Path(download_pretrained_from_hf(name, filename=CONFIG_NAME)))
    name = source.model.replace("/", "-")
    own = read_config(built_in_configs()[name])
    quick = source.kind == "tag" and wants_quick_gelu(name, str(source.pretrained))
    return {"model_cfg": {**own, **({"quick_gelu": True} if quick else {})}}


def _with_bias(model: Any, said: dict[str, Any], *, from_scratch: bool) -> dict[str, Any]:
    """A sigmoid loss has a bias; a model that has none is given one, and its config says so."""
    if getattr(model, "logit_bias", None) is None:
        if BUILT_AS in said:
            raise ConfigError(f"loss = 'siglip': {said[BUILT_AS]} has no bias to learn; choose loss: clip")
        model.logit_bias = torch.nn.Parameter(torch.tensor(SIGLIP_BIAS))
        if from_scratch:
            torch.nn.init.constant_(model.logit_scale, torch.tensor(SIGLIP_SCALE).log().item())
    said = copy.deepcopy(said)
    said["model_cfg"]["init_logit_bias"] = float(model.logit_bias.detach())
    return said


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def state_of(model: Any) -> dict[str, torch.Tensor]:
    """The model's tensors on the CPU, each with memory of its own, as safetensors wants them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in merged(model).items()}


def save_folder(folder: Path, learned: Learner, state: dict[str, torch.Tensor]) -> None:
    """Write weights and config into an empty folder; `quality.model` can name it."""
    from safetensors.torch import save_file

    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG_NAME).write_text(json.dumps(learned.config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    text = getattr(learned.parts.model, "text", None)
    hugging_face: Any = getattr(text, "config", None)
    if BUILT_AS not in learned.config and hasattr(hugging_face, "save_pretrained"):
        hugging_face.save_pretrained(folder)
        tokenizer: Any = getattr(learned.parts.tokenizer, "tokenizer", None)
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(folder)


def load_weights(model: Any, folder: Path) -> None:
    """Fill the model from a folder that `save_folder` wrote.

    Raises:
        ConfigError: they cannot be read, or are another architecture's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise unreadable(folder, WEIGHTS, error) from error
    fill(model, weights, folder)


def fill(model: Any, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Give the model what was saved of it in a folder.

    Raises:
        ConfigError: it is another architecture's.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"out: {folder} holds weights of another architecture ({reason}); give another out"
        ) from error
