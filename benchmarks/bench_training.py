"""A training step against a bare torch loop with the same model; data loading alone against the step.

Both sides of the first have their batch in memory. The bare loop is open_clip's
model and loss with AdamW, and nothing else; ours also measures gradients,
alignment and uniformity, and checks the loss. Loading decodes, crops and cuts
photographs and captions in processes of their own, as a training does.
"""

from __future__ import annotations

import io
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.builds import Row
from benchmarks.photos import photos
from vlmdata.training.config import TRAIN, TrainConfig
from vlmdata.training.loading import Key, Loaded, Pairs, load, workers_for
from vlmdata.training.order import batches
from vlmdata.training.samples import TRAIN as TRAIN_SPLIT
from vlmdata.training.samples import open_samples
from vlmdata.training.transforms import learning, measuring

MODEL = "ViT-S-32"
BATCH = 32
PHOTOS = 512
ROUNDS = 7


def run() -> list[Row]:
    """(name, ratio, bound, remark) of images/s."""
    from vlmdata.training.engine.models import learner

    with tempfile.TemporaryDirectory(prefix="vlmdata-bench-") as folder:
        config = _config(Path(folder))
        learned, bare = learner(config), learner(config)
        pairs = _pairs(config, learned)
        keys = _keys(pairs)
        batch = next(load(pairs, iter(keys[:1]), 0, pin=False))
        sides = {"step": _step(config, learned, batch), "bare": _bare(bare.parts.model, batch)}
        taken = _alternate(sides)
        loading = BATCH * len(keys) / _loading(pairs, keys)
    ratio = statistics.median(bare / own for bare, own in zip(taken["bare"], taken["step"], strict=True))
    rate = {name: BATCH / statistics.median(seconds) for name, seconds in taken.items()}
    told = f"{rate['step']:.1f} images/s, bare {rate['bare']:.1f}/s; {MODEL}, batch {BATCH}, {ROUNDS} rounds"
    workers = f"{loading:.0f} images/s by {workers_for(None)} processes, 500 px JPEG"
    return [
        ("training step / bare torch loop", ratio, ">= 0.9", told),
        ("data loading alone / training step", loading / rate["step"], ">= 2", workers),
    ]


def _config(folder: Path) -> TrainConfig:
    data = folder / "set"
    data.mkdir()
    with tarfile.open(data / "0.tar", "w") as tar:
        for number, picture in enumerate(photos(PHOTOS)):
            caption = json.dumps({"captions": [{"text": f"photograph {number} of the sea"}]}).encode()
            for suffix, content in (("jpg", picture), ("json", caption)):
                member = tarfile.TarInfo(f"{number:05d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    terms = {"data": str(data), "out": str(folder), "model": MODEL, "epochs": 1, "batch_per_device": BATCH}
    return TRAIN.parse({**terms, "allow_small_batch": True, "validation_share": 0.01, "trackers": []})


def _pairs(config: TrainConfig, learned: Any) -> Pairs:
    preprocess = learned.parts.preprocess
    plain, flipping = (learning(preprocess, config.crop_scale, flip=flip) for flip in (False, True))
    samples = open_samples(config, Path(config.out))
    return Pairs(samples, measuring(preprocess), plain, flipping, learned.parts.tokenizer, config.seed)


def _keys(pairs: Pairs) -> list[list[Key]]:
    shards = pairs.samples.shards(TRAIN_SPLIT)
    return [
        [(epoch, int(row)) for row in rows] for epoch in range(2) for rows in batches(shards, 0, epoch, PHOTOS, BATCH)
    ]


def _step(config: TrainConfig, learned: Any, batch: Loaded) -> Callable[[], Any]:
    from vlmdata.training.engine.devices import Place
    from vlmdata.training.engine.losses import loss_of
    from vlmdata.training.engine.pair import Pair, let_learn, set_modes
    from vlmdata.training.engine.step import Stepper, optimizer_for

    model, learns = learned.parts.model, {"vision": "trained", "text": "trained"}
    let_learn(model, learns)
    set_modes(model, learns, fixed_norms=False)
    pair = Pair(model, low_precision=False, device="cpu")
    optimizer, parameters = optimizer_for(model, config.weight_decay)
    stepper = Stepper(pair, pair, loss_of("clip"), optimizer, parameters, Place(0, 1, "cpu"), 0, config.max_grad_norm)
    return lambda: stepper.step(0, [batch], 1e-5)


def _bare(model: Any, batch: Loaded) -> Callable[[], Any]:
    import torch
    from open_clip.loss import ClipLoss

    model.train()
    loss, optimizer = ClipLoss(), torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> float:
        optimizer.zero_grad()
        total = loss(*model(batch.images, batch.tokens))
        total.backward()
        optimizer.step()
        return float(total.detach())

    return step


def _alternate(sides: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of a step each a round, taken in turns, so that a busy machine slows both alike."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():
        work()
    for _ in range(ROUNDS):
        for name, work in sides.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return taken


def _loading(pairs: Pairs, keys: list[list[Key]]) -> float:
    """Seconds to load all, the start of the processes aside: their first batch."""
    loaded = load(pairs, iter([keys[0], *keys]), workers_for(None), pin=False)
    next(loaded)
    start = time.perf_counter()
    for _ in loaded:
        pass
    return time.perf_counter() - start
