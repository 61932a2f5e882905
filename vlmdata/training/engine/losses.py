"""Contrastive losses over the whole effective batch, in fp32, each direction apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from open_clip.loss import ClipLoss, SigLipLoss, gather_features
from torch import Tensor
from torch.nn import functional as F

MAX_SCALE = 100.0
"""exp(logit_scale) at most (Radford et al. 2021)."""
_COMPARED = 1_024
"""Pairs of a batch between which uniformity is measured, at most: it grows with their square."""


@dataclass(frozen=True)
class Losses:
    """Of one batch.

    Attributes:
        total: what is minimised.
        to_text, to_image: cross-entropy of images among texts, and of texts among images.
        images, texts: the embeddings of all devices, detached.
    """

    total: Tensor
    to_text: Tensor
    to_image: Tensor
    images: Tensor
    texts: Tensor


Loss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Losses]


def loss_of(name: str, rank: int = 0, devices: int = 1) -> Loss:
    """`clip` or `siglip` over the embeddings of all devices, which open_clip gathers with their gradients."""
    whole = ClipLoss() if name == "clip" else SigLipLoss()

    def loss(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor | None) -> Losses:
        if devices > 1:
            images, texts = gather_features(
                images, texts, local_loss=False, gather_with_grad=True, rank=rank, world_size=devices
            )
        with torch.autocast(images.device.type, enabled=False):
            per_image, per_text = ClipLoss().get_logits(images, texts, scale)
            right = torch.arange(len(images), device=images.device)
            to_text, to_image = F.cross_entropy(per_image, right), F.cross_entropy(per_text, right)
            # The mean of the two is ClipLoss itself; a sigmoid loss has no directions.
            total = (to_text + to_image) / 2 if name == "clip" else whole(images, texts, scale, bias)
        return Losses(total, to_text.detach(), to_image.detach(), images.detach(), texts.detach())

    return loss


def alignment(images: Tensor, texts: Tensor) -> float:
    """Mean squared distance of an image and its text; 0 is best (Wang & Isola 2020, 2005.10242)."""
    return float((images - texts).square().sum(dim=1).mean())


def uniformity(vectors: Tensor) -> float:
    """log E exp(-2 d^2) over pairs of different rows; the lower, the more evenly they are spread (same)."""
    few = vectors[:_COMPARED]
    if len(few) < 2:
        return 0.0
    return float(torch.pdist(few).square().mul(-2).exp().mean().log())
