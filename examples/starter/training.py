"""Projections trained with CLIP's loss on what the frozen towers say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from starter.features import Towers

BATCH, RATE, DROPOUT, VIEWS = 512, 1e-3, 0.5, 2


@dataclass(frozen=True)
class Pairs:
    """What the towers said of some pictures and of their captions.

    Attributes:
        images: features (views, n, 1280).
        sentences: vectors (texts, 384) of all captions.
        captions: rows of `sentences` (n, captions a picture); who has fewer has them several times.
        titles: number of each picture's title (n,); two of one title are no mismatch.
    """

    images: Any
    sentences: Any
    captions: Any
    titles: Any


Item = tuple[str, list[str]]
"""A picture's key, and its captions; the first is its title."""


def pairs_of(towers: Towers, pictures: dict[str, Path], items: list[Item], views: int) -> Pairs:
    """Features of the items' pictures and captions."""
    import torch

    shown = {key: pictures[key] for key, _ in items}
    seen = [towers.images(shown, view) for view in range(views)]
    images = np.stack([[view[key] for key, _ in items] for view in seen])
    read = towers.texts(caption for _, captions in items for caption in captions)
    place = {caption: row for row, caption in enumerate(read)}
    most = max(len(captions) for _, captions in items)
    rows = np.stack([np.resize([place[caption] for caption in captions], most) for _, captions in items])
    numbers: dict[str, int] = {}
    titles = [numbers.setdefault(captions[0], len(numbers)) for _, captions in items]
    sentences = np.stack([*read.values()])
    return Pairs(*map(torch.from_numpy, (images, sentences, rows, np.array(titles))))


def train(model: Any, pairs: Pairs, epochs: int) -> None:
    """CLIP's loss over the projections; each step draws a view and a caption of every picture."""
    import torch

    head, count = model.visual.head, pairs.images.shape[1]
    groups = [
        {"params": list(head.residual.parameters()), "lr": RATE},
        {"params": [model.logit_scale], "lr": RATE, "weight_decay": 0.0},
        # What starts as knowledge moves slowly.
        {"params": [head.classes.weight], "lr": 0.3 * RATE, "weight_decay": 0.0},
        {"params": list(model.text.proj.parameters()), "lr": 0.1 * RATE, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.05)
    peaks: list[Any] = [group["lr"] for group in groups]
    steps = epochs * (count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peaks, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        if step % (count // BATCH) == 0:
            order = torch.randperm(count)
        rows = order[step % (count // BATCH) * BATCH :][:BATCH]
        loss = contrast(model, *_draw(pairs, rows), pairs.titles[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def blend(model: Any, before: dict[str, Any], share: float) -> None:
    """Weights that lie `share` of the way from `before` to what training made of them.

    What training adds beside what the start knew holds better on pictures and
    captions of another kind (Wortsman et al. 2022, WiSE-FT).
    """
    after = model.state_dict()
    model.load_state_dict({name: start.lerp(after[name], share) for name, start in before.items()}, strict=False)


def _draw(pairs: Pairs, rows: Any) -> tuple[Any, Any]:
    import torch

    views = torch.randint(len(pairs.images), (len(rows),))
    captions = torch.randint(pairs.captions.shape[1], (len(rows),))
    sentences = pairs.sentences[pairs.captions[rows, captions]]
    return torch.nn.functional.dropout(pairs.images[views, rows], DROPOUT), sentences


def contrast(model: Any, features: Any, sentences: Any, titles: Any) -> Any:
    """Symmetric cross-entropy over a batch, where pictures of one title are not set against each other."""
    import torch

    normalize, cross_entropy = torch.nn.functional.normalize, torch.nn.functional.cross_entropy
    images = normalize(model.visual.head(features), dim=-1)
    texts = normalize(model.text.proj(sentences), dim=-1)
    scores = model.logit_scale.exp().clamp(max=100) * images @ texts.T
    twins = (titles[:, None] == titles[None]) & ~torch.eye(len(titles), dtype=torch.bool)
    scores = scores.masked_fill(twins, -1e4)
    right = torch.arange(len(titles))
    return (cross_entropy(scores, right) + cross_entropy(scores.T, right)) / 2


def embed(model: Any, pairs: Pairs, caption: int) -> tuple[Any, Any]:
    """Normalised embeddings (n, 384) of first views and of one of the captions, float32."""
    import torch

    with torch.inference_mode():
        images = torch.nn.functional.normalize(model.visual.head(pairs.images[0]), dim=-1)
        texts = torch.nn.functional.normalize(model.text.proj(pairs.sentences[pairs.captions[:, caption]]), dim=-1)
    return images.numpy(), texts.numpy()
