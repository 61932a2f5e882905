"""Scoring, against a bare open_clip loop over the same tensors.

The bare loop has its pictures decoded and prepared in memory, and calls the
model on batches of 32 with as many threads as torch likes. Ours is measured
twice: over the same tensors, and from the bytes of the files, decoding beside
the model.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.builds import Row
from benchmarks.photos import photo_files
from vlmdata.measure.encoder import Encoder, load_encoder
from vlmdata.measure.pixels import upright_rgb

PHOTOS = 256
ROUNDS = 5
BARE_BATCH = 32
AGREE = 1e-4
"""CLIPScores of the two may differ by so much."""

Vectors = npt.NDArray[np.float32]


def run() -> list[Row]:
    """(name, ratio, bound, remark) of images/s, ours over the bare loop's."""
    encoder = load_encoder("starter")
    files = photo_files(PHOTOS)
    data = [Path(file).read_bytes() for file in files]
    tensors = np.stack([_prepared(encoder, one) for one in data])
    bare = _bare_loop()
    sides: dict[str, Callable[[], Vectors]] = {
        "bare": lambda: bare(tensors),
        "tensors": lambda: encoder.images(tensors),
        "bytes": lambda: _from_bytes(encoder, data),
    }
    found = {name: work() for name, work in sides.items()}
    apart = _furthest(encoder, found)
    if apart > AGREE:
        raise RuntimeError(f"scores differ from open_clip's own by {apart:.1e}")
    seconds = _alternate(sides)
    rate = {name: PHOTOS / statistics.median(taken) for name, taken in seconds.items()}
    told = f"{rate['tensors']:.0f} images/s, bare {rate['bare']:.0f}/s; {PHOTOS} images, {ROUNDS} rounds, starter"
    return [
        ("scoring / bare open_clip loop, same tensors", _ratio(seconds, "tensors"), ">= 0.85", told),
        ("scoring, decoding included / the same loop", _ratio(seconds, "bytes"), ">= 0.85", f"{rate['bytes']:.0f}/s"),
        ("scores, furthest from open_clip's own", apart, f"<= {AGREE:g}", f"{PHOTOS} images x 8 captions"),
    ]


def _prepared(encoder: Encoder, data: bytes) -> Vectors:
    with Image.open(io.BytesIO(data)) as image:
        return encoder.prepare(upright_rgb(image))


def _from_bytes(encoder: Encoder, data: Sequence[bytes]) -> Vectors:
    """As stage 03 does it; a picture has one view."""
    parts = list(encoder.pictures(data, lambda one: _prepared(encoder, one)[np.newaxis]))
    return np.concatenate(parts)[:, 0]


def _bare_loop() -> Callable[[Vectors], Vectors]:
    """open_clip as its README shows it."""
    import torch

    from vlmdata.models.load import load_parts
    from vlmdata.models.source import resolve

    model: Any = load_parts(resolve("starter", None)).model

    def loop(tensors: Vectors) -> Vectors:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(tensors), BARE_BATCH):
                features = model.encode_image(torch.from_numpy(tensors[start : start + BARE_BATCH]))
                parts.append((features / features.norm(dim=-1, keepdim=True)).numpy())
        return np.concatenate(parts)

    return loop


def _furthest(encoder: Encoder, found: dict[str, Vectors]) -> float:
    """The largest difference of a CLIPScore between the sides."""
    texts = encoder.texts([f"a photograph of {what}" for what in "sky sea sand snow wood road lake wall".split()])
    scores = {name: vectors @ texts.T for name, vectors in found.items()}
    return max(float(np.abs(scores[name] - scores["bare"]).max()) for name in ("tensors", "bytes"))


def _ratio(seconds: dict[str, list[float]], name: str) -> float:
    return statistics.median(bare / own for bare, own in zip(seconds["bare"], seconds[name], strict=True))


def _alternate(sides: dict[str, Callable[[], Vectors]]) -> dict[str, list[float]]:
    """Seconds of each a round, taken in turns, so that a busy machine slows all alike."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, work in sides.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return taken
