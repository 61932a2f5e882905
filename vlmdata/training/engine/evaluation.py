"""Both directions' recall on pictures that are not trained on, through the model's own transform."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from vlmdata.quality.recall import Ranks, Recall, Vectors, galleries, ranks
from vlmdata.training.config import EvaluationConfig
from vlmdata.training.engine.pair import Pair
from vlmdata.training.loading import Pairs, decoded
from vlmdata.training.order import Rows

_AT_ONCE = 64


def evaluate(pair: Pair, pairs: Pairs, rows: Rows, config: EvaluationConfig, device: str) -> dict[str, Recall]:
    """Recall of rows, image to text and text to image, each picture with its first caption."""
    ids = pairs.samples.table["id"].take(rows).to_pylist()
    to_text: list[Ranks] = []
    to_image: list[Ranks] = []
    modes = {module: module.training for module in pair.modules()}
    pair.eval()
    try:
        for drawn in galleries(ids, config.gallery, config.galleries):
            images, texts, wording = embeddings(pair, pairs, rows[drawn], device)
            # By words alone: an unfinished model finds everything alike.
            there, back = ranks(images, texts, wording, same_meaning=None)
            to_text.append(there)
            to_image.append(back)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return {"image_to_text": Recall.of(np.concatenate(to_text)), "text_to_image": Recall.of(np.concatenate(to_image))}


def embeddings(pair: Pair, pairs: Pairs, rows: Rows, device: str) -> tuple[Vectors, Vectors, list[str]]:
    """Embeddings (n, dim) of images and first captions, and these captions."""
    captions = [pairs.samples.table["captions"][int(row)][0].as_py() for row in rows]
    seen, read = [], []
    with torch.inference_mode():
        for start in range(0, len(rows), _AT_ONCE):
            images = torch.stack(list(_images(pairs, rows[start : start + _AT_ONCE]))).to(device)
            tokens = pairs.tokenizer(captions[start : start + _AT_ONCE]).to(device)
            image_vectors, text_vectors, _, _ = pair(images, tokens)
            seen.append(image_vectors.cpu().numpy())
            read.append(text_vectors.cpu().numpy())
    return np.concatenate(seen), np.concatenate(read), captions


def _images(pairs: Pairs, rows: Sequence[int] | Rows) -> Iterator[Any]:
    for data in pairs.bytes_of([int(row) for row in rows]):
        yield pairs.measuring(decoded(data))
