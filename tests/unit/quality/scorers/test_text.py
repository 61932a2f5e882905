"""Text in pictures: what boxes cover, and, where the detector is installed, that it finds words and no shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from vlmdata.quality.scorers.text import TextInPicture, covered


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_the_area_of_boxes_is_counted_once_where_they_overlap() -> None:
    assert covered([], 100, 50) == 0
    assert covered([box(0, 0, 49, 49)], 100, 50) == 0.5
    assert covered(np.array([box(0, 0, 49, 49), box(25, 0, 74, 49)]), 100, 50) == 0.75
    assert covered([box(-9, -9, 999, 999)], 100, 50) == 1


@given(st.lists(st.tuples(*[st.integers(-20, 120)] * 4), min_size=1, max_size=5))
def test_a_share_is_a_share_whatever_the_boxes_are(corners: list[tuple[int, int, int, int]]) -> None:
    assert 0 <= covered([box(*one) for one in corners], 100, 80) <= 1


def written(text: str, size: int) -> Image.Image:
    image = Image.new("RGB", (640, 480), "white")
    ImageDraw.Draw(image).text((40, 200), text, "black", ImageFont.load_default(size))
    return image


def test_words_are_found_and_shapes_are_not() -> None:
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxruntime")
    scorer = TextInPicture()
    scorer.check()
    assert scorer.identity().startswith("text@1 rapidocr==")
    small, large = (scorer.measure(written("Grand opening", size)) for size in (30, 80))
    assert 0.01 < small < large < 0.6
    shapes = Image.new("RGB", (640, 480), "white")
    ImageDraw.Draw(shapes).ellipse((100, 100, 300, 300), "red")
    assert scorer.measure(shapes) == 0
    wide = written("Grand opening", 80)
    assert scorer.measure(wide) == large and wide.size == (640, 480)
