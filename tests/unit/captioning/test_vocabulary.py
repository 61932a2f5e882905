"""The shipped phrases and their embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vlmdata.captioning import vocabulary


class Lengths:
    """An encoder of text lengths that counts its work."""

    def __init__(self, weights: str) -> None:
        self.weights = weights
        self.calls = 0

    def texts(self, texts: list[str]) -> Any:
        self.calls += 1
        return np.array([[len(text) / 300, 1.0] for text in texts], np.float32)


def test_phrases_are_distinct_and_fit_the_sentence() -> None:
    known = vocabulary.phrases()
    assert len(known) > 1_000 and len(set(known)) == len(known)
    assert all(phrase == phrase.strip() and phrase.isprintable() for phrase in known)


def test_shipped_embeddings_serve_their_own_model_only(tmp_path: Path) -> None:
    made: Any = Lengths("a")
    shipped = tmp_path / "a.safetensors"
    vocabulary.save(made, shipped)
    same: Any = Lengths("a")
    other: Any = Lengths("b")
    absent: Any = Lengths("a")
    first = vocabulary.embeddings(same, shipped)
    assert (same.calls, first.dtype) == (0, np.float32)
    np.testing.assert_array_equal(vocabulary.embeddings(other, shipped), first)
    np.testing.assert_array_equal(vocabulary.embeddings(absent, tmp_path / "none"), first)
    assert (other.calls, absent.calls) == (1, 1)
