"""The pictures that stage 03 looks at, and checkpoints that one pass over them makes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from vlmdata.checkpoint import Dataset, Manifest, Result, Shard, publish, step_key
from vlmdata.layout import Step
from vlmdata.measure.pixels import upright_rgb

Name = TypeVar("Name")


def one_pass(
    dataset: Dataset,
    shard: Shard,
    wanted: Mapping[Name, tuple[Step, Any]],
    work: Callable[[Sequence[Name]], Mapping[Name, Result]],
) -> dict[Name, Manifest]:
    """Checkpoints of a shard's pictures, by name: those that are missing are made together, and no other.

    Args:
        dataset: where they lie.
        shard: whose samples at 02_captioned say which pictures are meant.
        wanted: for each name its step, and the settings that decide the result.
        work: makes the results of the names that it is given.
    """
    keys = {name: (step, _key(dataset, shard, step, settings)) for name, (step, settings) in wanted.items()}
    done = {name: dataset.latest(*key) for name, key in keys.items()}
    missing = [name for name, path in done.items() if path is None]
    made = work(missing) if missing else {}
    paths = {name: path or publish(dataset, shard.name, *keys[name], made[name]) for name, path in done.items()}
    return {name: dataset.manifest_at(path) for name, path in paths.items()}


def is_done(dataset: Dataset, shard: Shard, step: Step, settings: Any) -> bool:
    """Whether a checkpoint of a shard's pictures is there."""
    return found_done(dataset, shard, step, settings) is not None


def found_done(dataset: Dataset, shard: Shard, step: Step, settings: Any) -> str | None:
    """Path of a checkpoint of a shard's pictures, if it is there."""
    return dataset.latest(step, _key(dataset, shard, step, settings))


def _key(dataset: Dataset, shard: Shard, step: Step, settings: Any) -> str:
    return step_key(step, [dataset.digest(shard, Step.CAPTIONED, "samples", ["id", "sha256"])], settings)


def ids_of(dataset: Dataset, shard: Shard) -> pa.Array:
    """Ids of a shard's samples at 02_captioned."""
    return dataset.read(shard, Step.CAPTIONED, "samples", ["id"])["id"].combine_chunks()


def pictures_of(dataset: Dataset, shard: Shard, ids: pa.Array) -> list[pa.Buffer]:
    """The bytes of a shard's pictures of these ids, in their order."""
    images = dataset.read(shard, Step.RAW, "images")
    images = images.take(pc.index_in(ids, value_set=images["id"]))
    return [cell.as_buffer() for chunk in images["image"].chunks for cell in chunk]


def opened(data: Any) -> Image.Image | None:
    """A picture upright, in RGB; None if it cannot be read, though it could in stage 01."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return upright_rgb(image)
    except (OSError, ValueError, SyntaxError, MemoryError):
        return None
