"""One optimiser step: rates, random state, gradients, their norms, and what is told of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch.nn.utils import clip_grad_norm_, get_total_norm

from vlmdata.errors import Diverged
from vlmdata.training.engine.devices import Place
from vlmdata.training.engine.gradcache import Chunk, backward
from vlmdata.training.engine.losses import MAX_SCALE, Loss, Losses, alignment, uniformity
from vlmdata.training.engine.pair import TOWERS, Pair, learning
from vlmdata.training.loading import Loaded
from vlmdata.training.order import step_seed

_TOLD_IDS = 8
"""Samples of a batch that an error names; the log has all."""


@dataclass(frozen=True)
class Stepper:
    """All that a stage's steps have in common.

    Attributes:
        net: what is called: `pair`, or DDP around it.
        parameters: all that learn.
    """

    net: Any
    pair: Pair
    loss: Loss
    optimizer: torch.optim.Optimizer
    parameters: list[torch.nn.Parameter]
    place: Place
    seed: int
    max_grad_norm: float

    def step(self, number: int, loaded: Sequence[Loaded], rate: float) -> dict[str, float]:
        """Learn from the device's chunks of a batch; returns the figures of the step.

        Raises:
            Diverged: the loss or its gradient is no number; nothing was changed.
        """
        torch.manual_seed(step_seed(self.seed, number, self.place.rank))
        chunks = [self._moved(one) for one in loaded]
        self.optimizer.zero_grad(set_to_none=True)
        found = backward(self.net, self.pair, chunks, self.loss)
        total = float(found.total.detach())
        if not math.isfinite(total):
            self._diverged(number, f"the loss is {total}", loaded)
        norms = {f"grad_norm_{tower}": _norm(learning(self.pair.model, tower)) for tower in TOWERS}
        steepness = float(clip_grad_norm_(self.parameters, self.max_grad_norm))
        if not math.isfinite(steepness):
            self._diverged(number, f"the gradient's norm is {steepness}", loaded)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return {**_figures(total, found), "logit_scale": bounded_scale(self.pair.model), **norms, "lr": rate}

    def _moved(self, loaded: Loaded) -> Chunk:
        device = self.place.device
        return loaded.images.to(device, non_blocking=True), loaded.tokens.to(device, non_blocking=True)

    def _diverged(self, number: int, what: str, loaded: Sequence[Loaded]) -> NoReturn:
        ids = [one for part in self.place.all_of([one for batch in loaded for one in batch.ids]) for one in part]
        told = ", ".join(ids[:_TOLD_IDS]) + (f" and {len(ids) - _TOLD_IDS} more" if len(ids) > _TOLD_IDS else "")
        raise Diverged(
            f"step {number + 1}: {what}; the batch's samples: {told} (all in log.txt);"
            " the last checkpoint is from before: lower base_lr or set precision: fp32, and look at these samples",
            ids,
        )


def bounded_scale(model: Any) -> float:
    """Keep `logit_scale` at `MAX_SCALE` or below; returns it, as cosines are multiplied by it."""
    with torch.no_grad():
        return float(model.logit_scale.clamp_(0, math.log(MAX_SCALE)).exp())


def _figures(total: float, found: Losses) -> dict[str, float]:
    to_text, to_image = float(found.to_text), float(found.to_image)
    return {
        "loss": total,
        "loss_image_to_text": to_text,
        "loss_text_to_image": to_image,
        "imbalance": imbalance(to_text, to_image),
        "alignment": alignment(found.images, found.texts),
        "uniformity_image": uniformity(found.images),
        "uniformity_text": uniformity(found.texts),
    }


def imbalance(to_text: float, to_image: float) -> float:
    """Difference of the two losses over their mean: 0 if both directions are as hard."""
    mean = (to_text + to_image) / 2
    return abs(to_text - to_image) / mean if mean else 0.0


def _norm(parameters: Any) -> float:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(get_total_norm(gradients)) if gradients else 0.0


def optimizer_for(model: Any, weight_decay: float) -> tuple[torch.optim.AdamW, list[torch.nn.Parameter]]:
    """AdamW over all that learns; scales, biases and norms do not decay. CLIP's betas (Radford et al. 2021)."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    used = [group for group in groups if group["params"]]
    return torch.optim.AdamW(used, lr=0.0, betas=(0.9, 0.98), eps=1e-6), [p for _, p in named]
