"""One step's gradients: of the loss over the whole batch, whatever fits into memory at once.

More than one chunk (Gao et al. 2021, arXiv 2101.06983): every chunk goes
through the model without a graph, and its embeddings are kept; the loss over
all of them gives the gradient of each embedding; then every chunk goes through
again, with the same random state, and passes these gradients on. The sum is
the gradient of the whole batch. Batch-norm must be in evaluation mode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlmdata.training.engine.losses import Loss, Losses
from vlmdata.training.engine.pair import TEXT, VISION, Pair, learning

Chunk = tuple[Tensor, Tensor]
"""Images (n, 3, H, W) and tokens (n, context), on the device."""


def backward(net: Any, pair: Pair, chunks: Sequence[Chunk], loss: Loss) -> Losses:
    """Add the batch's gradients to the parameters.

    Args:
        net: What is called: `pair` itself, or DDP around it.
        pair: The two towers.
        chunks: The device's part of the batch; one is a plain step.
        loss: Over embeddings, of all devices.
    """
    if len(chunks) == 1:
        images, texts, scale, bias = net(*chunks[0])
        found = loss(images, texts, scale, bias)
        torch.autograd.backward(found.total)
        return found
    states, images, texts = _embed(pair, chunks)
    scale = pair.model.logit_scale.detach().exp().requires_grad_()
    bias = _leaf(pair.bias)
    found = loss(images, texts, scale, bias)
    # With a loss that is no number there is nothing to pass on; the caller stops.
    if torch.isfinite(found.total):
        torch.autograd.backward(found.total)
        _replay(net, pair, chunks, states, _Cached(images.grad, texts.grad, scale.grad, _grad(bias)))
    return found


@dataclass(frozen=True)
class _Cached:
    images: Any
    texts: Any
    scale: Any
    bias: Any


@dataclass(frozen=True)
class _RandomState:
    cpu: Tensor
    gpu: Tensor | None
    device: torch.device

    @classmethod
    def now(cls, device: torch.device) -> _RandomState:
        gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), gpu, device)

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu, self.device)


def _embed(pair: Pair, chunks: Sequence[Chunk]) -> tuple[list[_RandomState], Tensor, Tensor]:
    states, seen, read = [], [], []
    with torch.no_grad():
        for images, tokens in chunks:
            states.append(_RandomState.now(images.device))
            image_vectors, text_vectors, _, _ = pair(images, tokens)
            seen.append(image_vectors)
            read.append(text_vectors)
    return states, torch.cat(seen).requires_grad_(), torch.cat(read).requires_grad_()


def _replay(net: Any, pair: Pair, chunks: Sequence[Chunk], states: Sequence[_RandomState], cached: _Cached) -> None:
    after = _RandomState.now(chunks[0][0].device)
    # A frozen tower has nothing to learn from a second look, unless its draws come before the other's.
    learns = {tower: any(True for _ in learning(pair.model, tower)) for tower in (VISION, TEXT)}
    start = 0
    for number, ((images, tokens), state) in enumerate(zip(chunks, states, strict=True), 1):
        stop = start + len(images)
        last = number == len(chunks)
        state.restore()
        with contextlib.nullcontext() if last else _no_sync(net):
            seen, read, scale, bias = net(images if learns[VISION] else None, tokens if learns[TEXT] else None)
            parts = [
                (vectors * gradient[start:stop]).sum()
                for vectors, gradient in ((seen, cached.images), (read, cached.texts))
                if vectors is not None
            ]
            if last:
                parts += [(one * g).sum() for one, g in ((scale, cached.scale), (bias, cached.bias)) if g is not None]
            torch.autograd.backward(sum(parts[1:], parts[0]))
        start = stop
    after.restore()


def _no_sync(net: Any) -> contextlib.AbstractContextManager[Any]:
    """Devices exchange gradients once, after the last chunk."""
    found: contextlib.AbstractContextManager[Any] = getattr(net, "no_sync", contextlib.nullcontext)()
    return found


def _leaf(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().clone().requires_grad_()


def _grad(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.grad
