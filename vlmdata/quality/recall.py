"""Retrieval over galleries of a fixed size: how often an image finds its caption, and a caption its image.

The size is fixed because recall falls as a gallery grows: a figure that moves
with the size of a set says nothing about its quality. A gallery holds one
caption an image, so an image's captions never compete with each other, and
captions that say the same never count against one another.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Ranks = npt.NDArray[np.int64]

SAME_MEANING = 0.95
"""Cosine of two captions' embeddings from which they say the same."""
_Z = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True)
class Recall:
    """Share of `n` queries whose right answer is among the first 1, 5 and 10.

    `intervals` bound the three with 95 % confidence, each from and to (Wilson 1927).
    """

    n: int
    r1: float
    r5: float
    r10: float
    intervals: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, ranks: Ranks) -> Recall:
        """From ranks that count from 1."""
        n = len(ranks)
        if not n:
            return cls(0, 0.0, 0.0, 0.0, ((0.0, 1.0),) * 3)
        hits = [int(np.count_nonzero(ranks <= most)) for most in (1, 5, 10)]
        r1, r5, r10 = (hit / n for hit in hits)
        return cls(n, r1, r5, r10, tuple(wilson(hit, n) for hit in hits))


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share."""
    share = hits / n
    centre = share + _Z**2 / (2 * n)
    spread = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return max(0.0, float((centre - spread) / scale)), min(1.0, float((centre + spread) / scale))


def galleries(ids: Sequence[str], size: int, most: int, seed: int = 0) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of up to `most` galleries of `size`, none in two; one smaller gallery only if there are fewer rows.

    Which rows follows from the ids and the seed alone, however the rows are ordered.
    """
    drawn = [sha256(f"{seed} {one}".encode()).digest() for one in ids]
    order = np.array(sorted(range(len(ids)), key=drawn.__getitem__), np.int64)
    whole = min(most, len(ids) // size) or (1 if len(ids) else 0)
    for number in range(whole):
        yield order[number * size : (number + 1) * size]


def ranks(
    images: Vectors, texts: Vectors, wording: Sequence[str], same_meaning: float | None = SAME_MEANING
) -> tuple[Ranks, Ranks]:
    """Rank of the right answer in one gallery, image to text and text to image: (n,) and (n,), from 1.

    Row i of all three belongs together. A wrong answer that scores the same
    counts as a better one. Captions that say the same as the right one, and
    the images of such captions, do not count.

    Args:
        images, texts: L2-normalised embeddings (n, dim).
        wording: the captions' texts, n of them.
        same_meaning: as for `alike`.
    """
    scores = images.astype(np.float32) @ texts.astype(np.float32).T
    right = np.diagonal(scores)
    counts = ~alike(texts, wording, same_meaning)
    to_text = 1 + np.count_nonzero((scores >= right[:, None]) & counts, axis=1)
    to_image = 1 + np.count_nonzero((scores >= right[None, :]) & counts, axis=0)
    return to_text, to_image


def alike(texts: Vectors, wording: Sequence[str], same_meaning: float | None = SAME_MEANING) -> npt.NDArray[np.bool_]:
    """Which captions say the same (n, n), itself too: by words, or by a cosine of embeddings (None: words alone)."""
    _, same = np.unique([plain(text) for text in wording], return_inverse=True)
    found: npt.NDArray[np.bool_] = same[:, None] == same[None, :]
    if same_meaning is not None:
        found |= texts.astype(np.float32) @ texts.astype(np.float32).T >= np.float32(same_meaning)
    return found


def plain(text: str) -> str:
    """The words alone: folded case, without marks between them."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(one if one.isalnum() else " " for one in folded).split())
