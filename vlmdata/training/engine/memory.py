"""Gradient checkpointing: whether, and what memory it saves, measured on this model and batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlmdata.errors import ConfigError
from vlmdata.training.engine.pair import Pair

BY_DEFAULT_ABOVE = 1_000_000_000
"""Parameters."""
_LOOKED_AT = 2
"""Pairs that are measured; activations grow with their number."""


def checkpoint_gradients(pair: Pair, asked: bool | None, at_once: int, context: int, side: int, device: str) -> str:
    """Switch it on or off; returns a sentence of which it is, and what it saves.

    Args:
        pair: Set up for its stage: what is frozen keeps no activations.
        asked: As in the config; None: by the model's size.
        at_once: Pairs that go through the model together.
        context: Tokens of a text.
        side: Pixels of a picture's side.
        device: Where the pair is.

    Raises:
        ConfigError: it is asked for and a tower cannot do it.
    """
    count = sum(parameter.numel() for parameter in pair.model.parameters())
    size = f"{count / 1e6:,.0f} M parameters"
    wanted = asked if asked is not None else count > BY_DEFAULT_ABOVE
    if not wanted:
        return f"gradient checkpointing: off, {'as the config says' if asked is False else f'for the model has {size}'}"
    batch = torch.zeros(_LOOKED_AT, 3, side, side, device=device), _tokens(pair, context, device)
    try:
        _switch_off(pair.model)  # a stage before may have switched it on
        before = kept_bytes(pair, *batch)
        pair.model.set_grad_checkpointing(True)
    except (AttributeError, ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"gradient_checkpointing: a tower of this model cannot ({error}); set gradient_checkpointing: false"
        ) from error
    after = kept_bytes(pair, *batch)
    told = [one * at_once / _LOOKED_AT / 2**20 for one in (before, after)]
    return (
        f"gradient checkpointing: on, {size}; {at_once} pairs keep about {told[1]:,.1f} MiB for the backward pass,"
        f" without it {told[0]:,.1f} MiB: {1 - after / before if before else 0:.0%} saved"
    )


def _switch_off(model: Any) -> None:
    model.set_grad_checkpointing(False)
    # open_clip switches those of Hugging Face on, whatever it is told.
    transformer: Any = getattr(getattr(model, "text", None), "transformer", None)
    for name in ("activation_checkpointing_disable", "gradient_checkpointing_disable"):  # since transformers 5, before
        if hasattr(transformer, name):
            getattr(transformer, name)()
            break


def _tokens(pair: Pair, context: int, device: str) -> Tensor:
    """Texts that use the whole context; none is padding."""
    return torch.ones(_LOOKED_AT, context, dtype=torch.long, device=device)


def kept_bytes(pair: Pair, images: Tensor, tokens: Tensor) -> int:
    """Bytes that a forward pass keeps for its backward pass, weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in pair.parameters()}
    kept: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            # Held, so that no other one comes to lie at its address.
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.random.fork_rng(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = pair(images, tokens)
    del out
    return sum(size for size, _ in kept.values())
