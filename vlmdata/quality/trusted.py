"""How large a gallery a model can be trusted to search: beyond it, right captions are missed too.

Of the misses that the retrieval check allows, right captions may use up a
half, so that the rest tells of wrong ones. What counts are pairs that the
model's own bounds accept, as the check looks at those alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmdata.config import RetrievalConfig
from vlmdata.quality.recall import galleries, ranks

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

SIZES = (1_000, 500, 200, 100, 50, 20)
"""Of galleries that are tried, after the one that holds all pairs."""
SPARE = 0.5
"""Of the misses that the retrieval check allows, the share that right captions may use up."""
WIDEST = 0.5
"""A model that needs a wider bound than this cannot tell anything."""


@dataclass(frozen=True)
class Trusted:
    """What a model brings to the retrieval check; None leaves it to the config.

    Attributes:
        gallery: images in the largest gallery that it may search.
        max_miss_rate: the bound in that one, where even the smallest leaves the config's no room.
    """

    gallery: int | None = None
    max_miss_rate: float | None = None


def trusted(
    ids: Sequence[str],
    images: Vectors,
    texts: Vectors,
    wording: Sequence[str],
    accept_above: float,
    wanted: RetrievalConfig,
) -> Trusted:
    """The largest gallery in which right captions are found often enough.

    No larger one than was tried is trusted, and nothing is said on fewer pairs
    than the smallest of `SIZES` holds.

    Args:
        ids: of the images, n of them; galleries are drawn by them.
        images, texts: normalised embeddings (n, dim); row i of both belongs together.
        wording: the captions' texts, n of them.
        accept_above: the bound above which the model accepts a pair.
        wanted: the config's gallery and bound.
    """
    rows: Rows = np.flatnonzero(np.einsum("nd,nd->n", images, texts) > np.float32(accept_above))
    pairs = _Pairs([ids[row] for row in rows], images[rows], texts[rows], [wording[row] for row in rows])
    allowed = SPARE * wanted.max_miss_rate
    whole = min(len(rows), wanted.gallery)
    if whole < SIZES[-1]:
        return Trusted()
    for size in (tried := [whole, *(size for size in SIZES if wanted.top_k < size < whole)]):
        if pairs.missed(size, wanted) <= allowed:
            return Trusted() if size == wanted.gallery else Trusted(size)
    return Trusted(tried[-1], min(WIDEST, round(pairs.missed(tried[-1], wanted) / SPARE, 3)))


@dataclass(frozen=True)
class _Pairs:
    """Pairs that a model accepts."""

    ids: Sequence[str]
    images: Vectors
    texts: Vectors
    wording: Sequence[str]

    def missed(self, size: int, wanted: RetrievalConfig) -> float:
        """Share of images whose caption is not among the first, over galleries of a size."""
        found = []
        for rows in galleries(self.ids, size, wanted.galleries):
            to_text, _ = ranks(self.images[rows], self.texts[rows], [self.wording[row] for row in rows])
            found.append(to_text > wanted.top_k)
        return float(np.concatenate(found).mean())
