"""Image embeddings of a shard: a checkpoint of their own, so that a threshold moved embeds nothing again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Counts, Dataset, Manifest, Result, Shard
from vlmdata.errors import BrokenInvariant
from vlmdata.layout import Step
from vlmdata.measure.encoder import Encoder, load_encoder, precision_on
from vlmdata.progress import advance
from vlmdata.quality.judges import Judge
from vlmdata.quality.pictures import found_done, ids_of, is_done, one_pass, opened, pictures_of

Vectors = npt.NDArray[np.float32]
TEXTS = "texts/"
"""How the tables of captions' embeddings begin, one a judge."""


def embed_shard(dataset: Dataset, shard: Shard, judge: Judge, device: str) -> Manifest:
    """Embed a shard's pictures with one model: table `images` (id, embedding float16 of the model's size)."""
    return _embedded(dataset, shard, judge, device, [Step.EMBEDDINGS])[Step.EMBEDDINGS]


def embed_both_ways(dataset: Dataset, shard: Shard, judge: Judge, device: str) -> tuple[Manifest, Manifest]:
    """`embed_shard`, and the same of the mirrored pictures: two checkpoints, and only what is missing is embedded."""
    found = _embedded(dataset, shard, judge, device, [Step.EMBEDDINGS, Step.MIRRORED])
    return found[Step.EMBEDDINGS], found[Step.MIRRORED]


def _embedded(dataset: Dataset, shard: Shard, judge: Judge, device: str, views: Sequence[Step]) -> dict[Step, Manifest]:
    settings = embedding_settings(judge, device)

    def work(missing: Sequence[Step]) -> dict[Step, Result]:
        encoder = load_encoder(judge.model, judge.pretrained, device)
        ids = ids_of(dataset, shard)
        if missing == [Step.EMBEDDINGS] and Step.LOOKS in shard.manifests:
            # Those that are close to others were embedded in stage 01.
            known = _known(dataset, [shard.manifests[Step.LOOKS]], settings)
            vectors = _with_known(dataset, shard, encoder, ids, known, Step.SCORES)[:, None]
        else:
            vectors = _embed(encoder, pictures_of(dataset, shard, ids), missing)
        return {view: _result(ids, vectors[:, at], encoder) for at, view in enumerate(missing)}

    return one_pass(dataset, shard, {view: (view, settings) for view in views}, work)


def embedding_settings(judge: Judge, device: str) -> dict[str, str]:
    """What decides an embedding, beside the picture."""
    # Half begun on a CPU and finished on a GPU, a set would mix two precisions.
    return {"model": judge.identity, "precision": precision_on(device)}


def _result(ids: pa.Array, vectors: Vectors, encoder: Encoder) -> Result:
    lost = int(np.isnan(vectors).any(axis=1).sum())
    return Result(
        {"images": pa.table({"id": ids, "embedding": vector_column(vectors)})},
        samples=Counts(came=len(ids), kept=len(ids) - lost, failed=lost),
        facts={"model": encoder.identity, "preprocessing": encoder.preprocessing, "precision": encoder.precision},
    )


def embed_some(
    dataset: Dataset, shard: Shard, judge: Judge, device: str, ids: pa.ChunkedArray, before: Shard
) -> Result:
    """Embed some of a shard's pictures: table `images` (id, embedding).

    Args:
        dataset: Where they lie.
        shard: Which holds them, at 00_raw.
        judge: Whose model.
        device: Where it computes.
        ids: Which pictures.
        before: The shard as a version before left it; what was embedded then is not embedded again.
    """
    settings, ids = embedding_settings(judge, device), pa.concat_arrays(ids.chunks)
    earlier = [before.manifests[Step.LOOKS]] if Step.LOOKS in before.manifests else []
    if Step.CAPTIONED in before.manifests:
        earlier += filter(None, [found_done(dataset, before, Step.EMBEDDINGS, settings)])
    encoder = load_encoder(judge.model, judge.pretrained, device)
    vectors = _with_known(dataset, shard, encoder, ids, _known(dataset, earlier, settings), Step.LOOKS)
    return _result(ids, vectors, encoder)


def _known(dataset: Dataset, earlier: Sequence[str], settings: dict[str, str]) -> pa.Table | None:
    """Embeddings (id, embedding) of manifests that were made in the same way."""
    manifests = [dataset.manifest_at(path) for path in earlier]
    same = [one for one in manifests if {name: one.facts[name] for name in settings} == settings]
    return pa.concat_tables([dataset.table(one.tables["images"]) for one in same]) if same else None


def _with_known(
    dataset: Dataset, shard: Shard, encoder: Encoder, ids: pa.Array, known: pa.Table | None, step: Step
) -> Vectors:
    """Embeddings (n, d) of a shard's pictures; those that are known are not made again."""
    if known is None:
        return _embed(encoder, pictures_of(dataset, shard, ids), [Step.EMBEDDINGS], step)[:, 0]
    at = pc.index_in(ids, value_set=known["id"])
    there = at.is_valid().to_numpy(zero_copy_only=False)
    vectors = np.empty((len(ids), encoder.dim), np.float32)
    vectors[there] = column_vectors(known["embedding"].take(at.drop_null()))
    if not there.all():
        rest = pictures_of(dataset, shard, ids.filter(pa.array(~there)))
        vectors[~there] = _embed(encoder, rest, [Step.EMBEDDINGS], step)[:, 0]
    return vectors


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


def image_vectors(dataset: Dataset, shard: Shard, judge: Judge, ids: pa.ChunkedArray, device: str) -> Vectors:
    """Embeddings (n, dim) of some of a shard's pictures, from `embed_shard`."""
    pictures = dataset.table(embed_shard(dataset, shard, judge, device).tables["images"])
    return column_vectors(pictures["embedding"].take(pc.index_in(ids, value_set=pictures["id"])))


def drawn_vectors(dataset: Dataset, shard: Shard, judge: Judge, ids: pa.ChunkedArray, device: str) -> Vectors:
    """`image_vectors`; of a shard that is not embedded yet, only these if they are few, and nothing is kept then."""
    few = 2 * len(ids) < len(ids_of(dataset, shard))
    if not few or is_done(dataset, shard, Step.EMBEDDINGS, embedding_settings(judge, device)):
        return image_vectors(dataset, shard, judge, ids, device)
    encoder = load_encoder(judge.model, judge.pretrained, device)
    vectors = _embed(encoder, pictures_of(dataset, shard, ids), [Step.EMBEDDINGS])[:, 0]
    return column_vectors(pa.chunked_array([vector_column(vectors)]))


def text_tables(dataset: Dataset, shard: Shard) -> list[pa.Table]:
    """Captions' embeddings as stage 03 left them: a table (caption_id, embedding) for each judge."""
    tables = dataset.manifest(shard, Step.SCORES).tables
    return [dataset.table(tables[name]) for name in sorted(tables) if name.startswith(TEXTS)]


def caption_vectors(tables: Sequence[pa.Table], caption_ids: pa.ChunkedArray, shard: Shard) -> Vectors:
    """Embeddings (n, dim) of captions that one judge scored, from `text_tables`.

    Raises:
        BrokenInvariant: no table holds them all.
    """
    for table in tables:
        at = pc.index_in(caption_ids, value_set=table["caption_id"])
        if not at.null_count:
            return column_vectors(table["embedding"].take(at))
    raise BrokenInvariant(f"shard {shard.name}: captions were scored, and their embeddings are not there")


def _embed(encoder: Encoder, pictures: Iterable[Any], views: Sequence[Step], step: Step = Step.SCORES) -> Vectors:
    """L2-normalised vectors (n, views, d); a picture that cannot be read gets NaN.

    NaN becomes the failure `not_embedded` of its sample, and the batch survives.
    """

    def load(data: Any) -> Vectors | None:
        image = opened(data)
        return None if image is None else _views(encoder.prepare(image), views)

    found = [np.empty((0, len(views), encoder.dim), np.float32)]
    for vectors in encoder.pictures(pictures, load, len(views)):
        found.append(vectors)
        advance(step, len(vectors))
    return np.concatenate(found)


def _views(prepared: Vectors, views: Sequence[Step]) -> Vectors:
    """What the model sees of a picture (3, H, W), as it is or mirrored: (views, 3, H, W).

    Mirrored after it was resized and cut, so that the two differ in nothing else.
    """
    return np.stack([prepared[:, :, ::-1] if view is Step.MIRRORED else prepared for view in views])
