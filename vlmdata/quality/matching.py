"""Pairs that belong together against the same, shuffled: what a score is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.models.calibration import pair_scores
from vlmdata.quality.recall import SAME_MEANING, plain

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matched:
    """n pairs of an image, or a caption of it, and a caption.

    Attributes:
        left, right: embeddings (n, dim), of any length; `right` is the captions'.
        wording: the captions' texts, n of them.
        said: for each image, every caption that it has, in plain words.
    """

    left: Vectors
    right: Vectors
    wording: Sequence[str]
    said: Sequence[frozenset[str]]

    def __len__(self) -> int:
        return len(self.wording)

    def scores(self, rounds: int = 10) -> tuple[Vectors, Vectors]:
        """Cosines of the pairs (n,), and of each left with at most `rounds` captions of others.

        A caption that an image has itself, or that says what the image's own
        one does, is never a wrong one.
        """
        left, right = unit(self.left), unit(self.right)
        words = np.array([plain(text) for text in self.wording], dtype=object)

        def alike(rows: Rows, others: Rows) -> npt.NDArray[np.bool_]:
            close = np.einsum("nd,nd->n", right[rows], right[others]) >= np.float32(SAME_MEANING)
            pairs = zip(rows, others, strict=True)
            own = np.fromiter((words[other] in self.said[row] for row, other in pairs), bool, len(rows))
            found: npt.NDArray[np.bool_] = close | own
            return found

        return pair_scores(left, right, rounds, alike=alike)


def unit(vectors: Vectors) -> Vectors:
    """Rows (n, dim) at length 1, float32."""
    found: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


def said_of(captions: pa.Table, ids: Sequence[str]) -> list[frozenset[str]]:
    """Every caption of each of these images, in plain words; `captions` has columns id and text."""
    mine = captions.filter(pc.is_in(captions["id"], value_set=pa.array(ids, pa.string())))
    found: dict[str, set[str]] = {one: set() for one in ids}
    for one, text in zip(mine["id"].to_pylist(), mine["text"].to_pylist(), strict=True):
        found[one].add(plain(text))
    return [frozenset(found[one]) for one in ids]
