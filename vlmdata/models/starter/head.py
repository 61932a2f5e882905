"""The image side's projection: ImageNet's class names as a bridge, and what training adds to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

CLASSES = 1_000
# Below 1 the classifier spreads its belief over more classes than its argmax,
# which is what a picture of something that is no class needs.
TEMPERATURE = 0.5


class BridgeHead(nn.Module):
    """Pooled image features (n, 1280) to embeddings (n, dim).

    A frozen classifier says how far the picture is each of ImageNet's classes;
    `classes` holds a place in text space for each (at the start the embedding
    of its name), and their mean under that belief is the picture's place: this
    alone needs no training. `residual` adds what the class names cannot say.
    """

    def __init__(self, width: int, hidden: int, dim: int) -> None:
        """Sizes of the features, of the residual's hidden layer and of the embedding."""
        super().__init__()
        self.classifier = nn.Linear(width, CLASSES)
        self.classes = nn.Linear(CLASSES, dim, bias=False)
        self.residual = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, dim, bias=False))

    def forward(self, features: Any) -> Any:
        """Embeddings, not normalised, of features (n, width)."""
        belief = torch.softmax(TEMPERATURE * self.classifier(features), dim=-1)
        return self.classes(belief) + self.residual(features)
