"""Retrieval, AUC and the gallery to be trusted, on pictures that were not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from starter.training import Pairs, embed
from vlmdata.config import RetrievalConfig
from vlmdata.models.calibration import Bands, auc, pair_scores
from vlmdata.quality.recall import wilson
from vlmdata.quality.trusted import Trusted, trusted


@dataclass(frozen=True)
class Measured:
    """A gallery of n pictures and captions: R@1, R@5, R@10 in percent both ways, AUC, scores of pairs, embeddings."""

    n: int
    to_text: tuple[float, float, float]
    to_image: tuple[float, float, float]
    auc: float
    matched: Any
    shuffled: Any
    images: Any
    texts: Any
    titles: list[str]

    def trusted(self, bands: Bands) -> Trusted:
        """What the model may search with these bands, when the retrieval check asks for what it does by default."""
        rows = [str(row) for row in range(self.n)]
        return trusted(rows, self.images, self.texts, self.titles, bands.accept_above, RetrievalConfig())

    def row(self, name: str) -> str:
        """A row of a card's table."""
        there, back = (shown(way, self.n) for way in (self.to_text, self.to_image))
        return f"| {name} | {self.n:,} | {there} | {back} | {self.auc:.3f} |"


def shown(way: tuple[float, float, float], n: int) -> str:
    """R@1, R@5, R@10 in percent, and Wilson's 95 % interval of the last."""
    low, high = wilson(round(way[2] * n / 100), n)
    return " / ".join(f"{share:.1f}" for share in way) + f" [{100 * low:.1f}, {100 * high:.1f}]"


def measure(model: Any, pairs: Pairs, caption: int) -> Measured:
    """How well pictures find one of their captions among all, and the other way."""
    images, texts = embed(model, pairs, caption)
    matched, shuffled = pair_scores(images, texts)
    return Measured(
        n=len(images),
        to_text=recall(images, texts),
        to_image=recall(texts, images),
        auc=auc(matched, shuffled),
        matched=matched,
        shuffled=shuffled,
        images=images,
        texts=texts,
        titles=[str(number) for number in pairs.titles.tolist()],
    )


def recall(queries: Any, gallery: Any) -> tuple[float, float, float]:
    """R@1, R@5, R@10 in percent; row i of both belongs together, ties count against it."""
    scores = queries @ gallery.T
    ranks = (scores >= np.diag(scores)[:, None]).sum(axis=1)
    one, five, ten = (float(100 * (ranks <= k).mean()) for k in (1, 5, 10))
    return one, five, ten
