"""Adapters of low rank for the text tower (Hu et al. 2021, LoRA); a saved model has them added in.

Beside linear layers they are `peft`'s. torch's own attention uses its matrices
without calling them, and there peft adds and takes away with each pass, which
rounds what is frozen or is not seen by DDP: these are torch's parametrizations.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vlmdata.errors import ConfigError
from vlmdata.training.config import LoraConfig

_NAME = "default"


class _LowRank(nn.Module):
    """A matrix (out, in), and what its adapter adds to it; nothing at first."""

    def __init__(self, weight: Tensor, rank: int, alpha: int) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.empty(rank, weight.shape[1]))
        self.lora_B = nn.Parameter(torch.zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as peft begins, and nn.Linear
        self._scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self._scale * (self.lora_B @ self.lora_A)


def add_adapters(model: Any, config: LoraConfig) -> int:
    """Put an adapter beside each matrix of the text tower's transformer: linear layers, attention; returns how many.

    Raises:
        ConfigError: peft is not installed, or the tower has no such matrix, or attention that takes no dropout.
    """
    if importlib.util.find_spec("peft") is None:
        raise ConfigError("stages: text: lora needs peft, which is not installed; install vlmdata[train]")
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    tower = getattr(model, "text", model).transformer
    # Of this kind itself: an attention's last layer is a subclass, and is never called.
    linear = [name for name, module in tower.named_modules() if type(module) is nn.Linear]
    attention = [module for module in tower.modules() if isinstance(module, nn.MultiheadAttention)]
    if attention and config.dropout:
        raise ConfigError(
            f"lora.dropout = {config.dropout:g}: the attention of the model's text tower takes none; set 0"
        )
    if linear:
        wanted = PeftConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=linear, bias="none"
        )
        inject_adapter_in_model(wanted, tower, adapter_name=_NAME)
    beside = [
        (module, name)
        for one in attention
        for module, name in ((one, "in_proj_weight"), (one.out_proj, "weight"))
        if getattr(module, name) is not None
    ]
    for module, name in beside:
        low = _LowRank(getattr(module, name), config.rank, config.alpha)
        parametrize.register_parametrization(module, name, low)
    if not linear and not beside:
        raise ConfigError("stages: text: lora: the model's text tower has no matrix for an adapter; set trained")
    return len(linear) + len(beside)


def merged(model: Any) -> dict[str, Tensor]:
    """The model's tensors by their names without adapters, these added to the weights beside which they stand."""
    sums: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            if hasattr(module, "get_delta_weight") and hasattr(module, "base_layer"):
                sums[f"{name}.base_layer.weight"] = module.base_layer.weight + module.get_delta_weight(_NAME)
            elif parametrize.is_parametrized(module):
                for own in module.parametrizations:
                    sums[f"{name}.parametrizations.{own}.original"] = getattr(module, own)
        return {
            _plain(name): sums.get(name, tensor) for name, tensor in model.state_dict().items() if ".lora_" not in name
        }


def _plain(name: str) -> str:
    """A tensor's name where no adapter stands beside it."""
    if ".parametrizations." in name:
        name = name.replace(".parametrizations.", ".").removesuffix(".original")
    return name.replace(".base_layer.", ".")
