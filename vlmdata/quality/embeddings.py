"""Image embeddings of a shard: a checkpoint of their own, so that a threshold moved embeds nothing again."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard, run_once
from vlmdata.layout import Step
from vlmdata.measure.encoder import Encoder, load_encoder, precision_on
from vlmdata.measure.pixels import upright_rgb
from vlmdata.progress import advance
from vlmdata.quality.judges import Judge

Vectors = npt.NDArray[np.float32]


def embed_shard(dataset: Dataset, shard: Shard, judge: Judge, device: str) -> Manifest:
    """Embed a shard's pictures with one model: table `images` (id, embedding float16 of the model's size)."""
    reads = [dataset.digest(shard, Step.CAPTIONED, "samples", ["id", "sha256"])]
    # Half begun on a CPU and finished on a GPU, a set would mix two precisions.
    settings = {"model": judge.identity, "precision": precision_on(device)}
    done = run_once(dataset, shard, Step.EMBEDDINGS, reads, settings, lambda _: _work(dataset, shard, judge, device))
    return dataset.manifest(done, Step.EMBEDDINGS)


def _work(dataset: Dataset, shard: Shard, judge: Judge, device: str) -> Result:
    encoder = load_encoder(judge.model, judge.pretrained, device)
    ids = dataset.read(shard, Step.CAPTIONED, "samples", ["id"])["id"].combine_chunks()
    pictures = dataset.read(shard, Step.RAW, "images")
    pictures = pictures.take(pc.index_in(ids, value_set=pictures["id"]))
    vectors = _embed(encoder, (cell.as_buffer() for chunk in pictures["image"].chunks for cell in chunk))
    table = pa.table({"id": ids, "embedding": vector_column(vectors)})
    lost = int(np.isnan(vectors).any(axis=1).sum())
    return Result(
        {"images": table},
        samples=Counts(came=len(ids), kept=len(ids) - lost, failed=lost),
        facts={"model": judge.identity, "preprocessing": encoder.preprocessing, "precision": encoder.precision},
    )


def vector_column(vectors: Vectors) -> pa.FixedSizeListArray:
    """Vectors (n, d) as a column of fixed-size lists of float16."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), vectors.shape[1])


def column_vectors(column: pa.ChunkedArray) -> Vectors:
    """A column of fixed-size lists of float16 as float32 vectors (n, d)."""
    whole = column.combine_chunks()
    whole = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
    flat = whole.flatten().to_numpy(zero_copy_only=False)
    vectors: Vectors = flat.reshape(len(whole), whole.type.list_size).astype(np.float32)
    return vectors


def _embed(encoder: Encoder, pictures: Iterable[Any]) -> Vectors:
    """L2-normalised vectors (n, d); a picture that cannot be read gets NaN."""

    def load(data: Any) -> Vectors | None:
        try:
            with Image.open(io.BytesIO(data)) as image:
                return encoder.prepare(upright_rgb(image))
        except (OSError, ValueError, SyntaxError, MemoryError):
            # It decoded in stage 01: NaN becomes the failure `not_embedded` of this sample, and the batch survives.
            return None

    found = [np.empty((0, encoder.dim), np.float32)]
    for vectors in encoder.pictures(pictures, load):
        found.append(vectors)
        advance(Step.SCORES, len(vectors))
    return np.concatenate(found)
