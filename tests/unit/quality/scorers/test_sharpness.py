"""Sharpness: the variance of a Laplacian that anybody can take by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vlmdata.quality.scorers.sharpness import LONGER_SIDE, Sharpness

SCORER = Sharpness()


def noise(seed: int, width: int = 512, height: int = 384) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


def test_it_is_the_variance_of_the_laplacian() -> None:
    grey = np.asarray(noise(0).convert("L"), np.float64)
    rows, columns = grey.shape
    laplacian = [
        grey[y - 1, x] + grey[y + 1, x] + grey[y, x - 1] + grey[y, x + 1] - 4 * grey[y, x]
        for y in range(1, rows - 1)
        for x in range(1, columns - 1)
    ]
    assert SCORER.measure(noise(0)) == pytest.approx(np.var(laplacian), rel=1e-12)


def test_the_more_a_picture_is_blurred_the_less_it_measures() -> None:
    found = [SCORER.measure(noise(1).filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4, 8)]
    assert found == sorted(found, reverse=True) and found[0] > 20 > found[-1]


def test_a_plain_colour_has_none() -> None:
    assert SCORER.measure(Image.new("RGB", (300, 200), "orange")) == 0


def test_a_larger_copy_measures_about_the_same() -> None:
    photo = noise(2).filter(ImageFilter.GaussianBlur(1))
    double = photo.resize((2 * LONGER_SIDE, 768), Image.Resampling.LANCZOS)
    assert SCORER.measure(double) == pytest.approx(SCORER.measure(photo), rel=0.02)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 2)])
def test_any_shape_has_a_number(size: tuple[int, int]) -> None:
    assert SCORER.measure(Image.new("RGB", size, "white")) == 0
