"""Adapters of low rank for the text tower (Hu et al. 2021, LoRA), by `peft`; a saved model has them added in."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from vlmdata.errors import ConfigError
from vlmdata.training.config import LoraConfig

_NAME = "default"
_FUSED = "in_proj_weight"


def add_adapters(model: Any, config: LoraConfig) -> int:
    """Put adapters beside linear layers of the text tower's transformer, and query, key and value; returns how many.

    torch's own attention keeps these three in one matrix that is no layer, and its adapter has no dropout.

    Raises:
        ConfigError: peft is not installed, or the tower has no such layer, or one that takes no dropout.
    """
    if importlib.util.find_spec("peft") is None:
        raise ConfigError("stages: text: lora needs peft, which is not installed; install vlmdata[train]")
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    tower = getattr(model, "text", model).transformer
    linear = [name for name, module in tower.named_modules() if type(module) is nn.Linear]
    fused = [
        f"{name}.{_FUSED}"
        for name, module in tower.named_modules()
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None
    ]
    if fused and config.dropout:
        raise ConfigError(
            f"lora.dropout = {config.dropout:g}: the attention of the model's text tower takes none; set 0"
        )
    if not linear + fused:
        raise ConfigError("stages: text: lora: the model's text tower has no linear layer; set trained")
    wanted = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=linear, bias="none"
    )
    wanted.target_parameters = fused or None
    inject_adapter_in_model(wanted, tower, adapter_name=_NAME)
    return len(linear) + len(fused)


def merged(model: Any) -> dict[str, Tensor]:
    """The model's tensors by their names without adapters, these added to the weights beside which they stand."""
    found = {}
    deltas = {
        f"{name}.base_layer.{getattr(module, 'parameter_name', 'weight')}": module.get_delta_weight(_NAME)
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight") and hasattr(module, "base_layer")
    }
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if ".lora_" not in name:
                delta = deltas.get(name)
                found[name.replace(".base_layer.", ".")] = tensor if delta is None else tensor + delta
    return found
