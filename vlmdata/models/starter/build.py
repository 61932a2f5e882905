"""Puts `starter` together: two towers from their packages, and the projections that ship here."""

from __future__ import annotations

import copy
from dataclasses import dataclass
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
    from safetensors.torch import load_file

    config = read_config(starter.CONFIG)
    _check_towers(config["towers"])
    parts = untrained(config)
    trained = {name: tensor.float() for name, tensor in load_file(starter.WEIGHTS).items()}
    unexpected = parts.model.load_state_dict(trained, strict=False).unexpected_keys
    if unexpected or not all(any(name.startswith(part) for name in trained) for part in TRAINED):
        raise ConfigError(f"model: {starter.WEIGHTS.name} does not fit its config; reinstall vlmdata")
    return parts


def untrained(config: dict[str, Any]) -> Parts:
    """The model with its towers' weights and fresh projections: what training starts from."""
    import torch
    from open_clip.model import CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer

    from vlmdata.models.starter.head import BridgeHead

    model_config = copy.deepcopy(config["model_cfg"])
    text_config = model_config["text_cfg"]
    text_config["hf_model_name"] = str(towers.text_folder())
    model = CustomTextCLIP(**model_config)
    visual = model.visual
    visual.head = BridgeHead(visual.trunk.num_features, HIDDEN, model_config["embed_dim"])
    towers.load_image_tower(visual.trunk, visual.head.classifier)
    towers.load_text_tower(model.text.transformer)
    # Depthwise convolutions run about three times as fast in this layout on a CPU.
    model.visual.to(memory_format=torch.channels_last)
    tokenizer = HFTokenizer(str(towers.text_folder()), context_length=text_config["context_length"])
    return Parts(model.eval(), tokenizer, dict(config["preprocess_cfg"]))


def tower_hashes() -> dict[str, str]:
    """sha256 of the towers' weights, as the config records them."""
    return {"image": file_hash(towers.image_weights()), "text": file_hash(towers.text_weights())}


def _check_towers(expected: dict[str, str]) -> None:
    for tower, digest in tower_hashes().items():
        if digest != expected[tower]:
            raise ConfigError(
                f"model: starter's {tower} tower is {digest[:12]}, expected {expected[tower][:12]};"
                " install the versions that vlmdata pins"
            )
