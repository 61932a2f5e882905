"""Puts `starter` together: two towers from their packages, and the projections that ship here."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmdata.errors import ConfigError
from vlmdata.models import starter
from vlmdata.models.source import file_hash, read_config
from vlmdata.models.starter import towers

HIDDEN = 384
# Everything that is trained, and nothing that a package carries.
TRAINED = ("visual.head.classes.", "visual.head.residual.", "text.proj.", "logit_scale")


@dataclass(frozen=True)
class Parts:
    """An open_clip model, its tokenizer and its preprocessing parameters."""

    model: Any
    tokenizer: Any
    preprocess: dict[str, Any]


def build() -> Parts:
    """`starter`, on the CPU in fp32 and in evaluation mode, without any network.

    Raises:
        ConfigError: a package is missing, or is not the version that was trained with.
    """
    config = read_config(starter.CONFIG)
    check_towers(starter.NAME, config["towers"], tower_hashes())
    parts = untrained(config)
    load_trained(parts.model, starter.WEIGHTS, TRAINED)
    return parts


def untrained(config: dict[str, Any]) -> Parts:
    """The model with its towers' weights and fresh projections: what training starts from."""
    from open_clip.model import CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer

    model_config = copy.deepcopy(config["model_cfg"])
    text_config = model_config["text_cfg"]
    text_config["hf_model_name"] = str(towers.text_folder())
    model = CustomTextCLIP(**model_config)
    put_image_tower(model, model_config["embed_dim"])
    towers.load_text_tower(model.text.transformer)
    tokenizer = HFTokenizer(str(towers.text_folder()), context_length=text_config["context_length"])
    return Parts(model.eval(), tokenizer, dict(config["preprocess_cfg"]))


def put_image_tower(model: Any, dim: int) -> None:
    """Give a model with timm's `tf_efficientnet_lite0` its weights and a fresh head of `dim` dimensions."""
    import torch

    from vlmdata.models.starter.head import BridgeHead

    visual = model.visual
    visual.head = BridgeHead(visual.trunk.num_features, HIDDEN, dim)
    towers.load_image_tower(visual.trunk, visual.head.classifier)
    # Depthwise convolutions run about three times as fast in this layout on a CPU.
    visual.to(memory_format=torch.channels_last)


def load_trained(model: Any, weights: Path, trained: tuple[str, ...]) -> None:
    """Fill what was trained, that is every tensor whose name begins with one of `trained`.

    Raises:
        ConfigError: the file lacks a part, or holds what the model does not have.
    """
    from safetensors.torch import load_file

    state = {name: tensor.float() for name, tensor in load_file(weights).items()}
    unexpected = model.load_state_dict(state, strict=False).unexpected_keys
    if unexpected or not all(any(name.startswith(part) for name in state) for part in trained):
        raise ConfigError(f"model: {weights.name} does not fit its config; reinstall vlmdata")


def tower_hashes() -> dict[str, str]:
    """sha256 of the towers' weights, as the config records them."""
    return {"image": file_hash(towers.image_weights()), "text": file_hash(towers.text_weights())}


def check_towers(model: str, expected: dict[str, str], found: dict[str, str]) -> None:
    """Compare hashes of a model's towers with those that it was trained with.

    Raises:
        ConfigError: they differ; the projections would give noise.
    """
    for tower, digest in found.items():
        if digest != expected[tower]:
            raise ConfigError(
                f"model: {model}'s {tower} tower is {digest[:12]}, expected {expected[tower][:12]};"
                " install the versions that vlmdata pins"
            )
