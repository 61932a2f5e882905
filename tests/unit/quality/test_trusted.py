"""How large a gallery a model can be trusted to search, against a search of every pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vlmdata.config import RetrievalConfig
from vlmdata.quality.matching import unit
from vlmdata.quality.recall import galleries
from vlmdata.quality.trusted import SIZES, WIDEST, Trusted, trusted

CONFIG = RetrievalConfig()
ALL = -1.1
"""A bound that every pair is over."""


def pairs(n: int, noise: float) -> tuple[list[str], Any, Any, list[str]]:
    draw = np.random.default_rng(0)
    texts = draw.normal(size=(n, 16)).astype(np.float32)
    images = texts + draw.normal(size=(n, 16), scale=noise).astype(np.float32)
    return [str(number) for number in range(n)], unit(images), unit(texts), [f"no. {number}" for number in range(n)]


def missed(of: tuple[list[str], Any, Any, list[str]], size: int) -> float:
    """Share of images whose caption is not among the first ten, in galleries of a size; no two captions are alike."""
    ids, images, texts, _ = of
    found = []
    for rows in galleries(ids, size, CONFIG.galleries):
        cosines = images[rows] @ texts[rows].T
        found += [int((row >= row[place]).sum()) > 10 for place, row in enumerate(cosines)]
    return float(np.mean(found))


@pytest.mark.parametrize("noise", [1.2, 1.4, 1.6, 1.8, 2.0])
def test_a_weak_models_gallery_is_as_large_as_it_can_be_trusted_with(noise: float) -> None:
    of = pairs(600, noise)
    found = trusted(*of, ALL, CONFIG)
    chosen = found.gallery or 600
    larger = [size for size in (600, *SIZES) if chosen < size <= 600]
    assert all(missed(of, size) > 0.1 for size in larger)
    if found.max_miss_rate is None:
        assert missed(of, chosen) <= 0.1
    else:
        wanted = min(WIDEST, 2 * missed(of, chosen))
        assert chosen == SIZES[-1] and found.max_miss_rate == pytest.approx(wanted, abs=1e-3)


def test_nothing_speaks_against_a_good_model() -> None:
    assert trusted(*pairs(1_100, 0.0), ALL, CONFIG) == Trusted()


def test_no_larger_gallery_than_was_tried_is_trusted() -> None:
    assert trusted(*pairs(600, 0.0), ALL, CONFIG) == Trusted(600)


def test_a_blind_model_has_the_smallest_gallery_and_a_bound_of_its_own() -> None:
    found = trusted(*pairs(600, 50.0), ALL, CONFIG)
    assert found.gallery == SIZES[-1]
    assert found.max_miss_rate == WIDEST < 2 * missed(pairs(600, 50.0), SIZES[-1])


def test_on_too_few_pairs_nothing_is_said() -> None:
    assert trusted(*pairs(SIZES[-1] - 1, 50.0), ALL, CONFIG) == Trusted()


def test_pairs_that_the_model_does_not_accept_are_nobodys_misses() -> None:
    ids, images, texts, wording = pairs(600, 0.0)
    right = np.arange(600) < 300
    mixed = np.where(right[:, None], images, -images)
    assert trusted(ids, mixed, texts, wording, ALL, CONFIG).max_miss_rate is not None
    assert trusted(ids, mixed, texts, wording, 0.5, CONFIG) == Trusted(300)
