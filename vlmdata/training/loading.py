"""Pairs on their way to the model: read, decoded, cropped and cut into tokens in processes of their own."""

from __future__ import annotations

import io
import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
from PIL import Image

from vlmdata.errors import SourceError, VlmdataError
from vlmdata.measure.pixels import upright_rgb
from vlmdata.training.order import sample_draw
from vlmdata.training.samples import Samples
from vlmdata.training.transforms import Transform

MAX_PIXELS = 100_000_000
"""A picture that declares more is not decoded."""
_NEXT_TRIED = 16
"""Rows after one whose picture does not decode that are tried in its place."""
_CPU_WORKERS = 8

Key = tuple[int, int]
"""Epoch and row: with the seed, all that decides what is drawn of a pair."""


@dataclass(frozen=True)
class Loaded:
    """Some pairs.

    Attributes:
        images: (n, 3, H, W) float32.
        tokens: (n, context) int64.
        ids: n.
        failed: ids of pictures that did not decode, and why; the next of the set stand in their places.
    """

    images: Any
    tokens: Any
    ids: list[str]
    failed: list[tuple[str, str]] = field(default_factory=list)

    def pinned(self) -> Loaded:
        """Where a GPU can fetch it while it computes."""
        return Loaded(self.images.pin_memory(), self.tokens.pin_memory(), self.ids, self.failed)


@dataclass
class Pairs:
    """The pairs of a set by `Key`, as torch's DataLoader asks for them."""

    samples: Samples
    measuring: Transform
    plain: Transform
    flipping: Transform
    tokenizer: Any
    seed: int

    def __len__(self) -> int:
        return int(self.samples.table.num_rows)

    def __getitems__(self, keys: Sequence[Key]) -> Loaded | VlmdataError:
        """A batch of pairs; an error is handed over as it is, for torch would wrap it in a traceback."""
        try:
            return self._batch(keys)
        except VlmdataError as error:
            return error

    def _batch(self, keys: Sequence[Key]) -> Loaded:
        import torch

        failed: list[tuple[str, str]] = []
        pictures = self.bytes_of([row for _, row in keys])
        made = (self._pair(epoch, row, data, failed) for (epoch, row), data in zip(keys, pictures, strict=True))
        images, texts, ids = zip(*made, strict=True)
        return Loaded(torch.stack(images), self.tokenizer(list(texts)), list(ids), failed)

    def _pair(self, epoch: int, row: int, data: bytes, failed: list[tuple[str, str]]) -> tuple[Any, str, str]:
        import torch

        image, at = self._first_readable(row, data, failed)
        table = self.samples.table
        draw = sample_draw(self.seed, epoch, row)
        weights = np.array(table["weights"][at].as_py())
        caption = table["captions"][at][int(draw.choice(len(weights), p=weights / weights.sum()))].as_py()
        # Of the processor alone: seeding all devices would cost more than the crop.
        torch.default_generator.manual_seed(int(draw.integers(2**63)))
        transform = self.plain if table["sided"][at].as_py() else self.flipping
        return transform(image), caption, table["id"][at].as_py()

    def _first_readable(self, row: int, data: bytes, failed: list[tuple[str, str]]) -> tuple[Image.Image, int]:
        for step in range(_NEXT_TRIED):
            at = (row + step) % len(self)
            try:
                return (decoded(data) if step == 0 else self.image(at)), at
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                failed.append((self.samples.table["id"][at].as_py(), f"{type(error).__name__}: {error}"))
        raise SourceError(
            f"data: {_NEXT_TRIED} pictures in a row do not decode, the first {failed[0][0]}: {failed[0][1]}"
        )

    def image(self, row: int) -> Image.Image:
        """The picture of a row, upright, RGB; OSError or ValueError if it does not decode."""
        return decoded(self.bytes_of([row])[0])

    def bytes_of(self, rows: Sequence[int]) -> list[bytes]:
        """The pictures of rows, as they are stored; one request for what lies in one tar.

        Raises:
            SourceError: they cannot be read.
        """
        tar, offset, size = (self.samples.table[name] for name in ("tar", "offset", "size"))
        return self.samples.tars.read([(tar[row].as_py(), offset[row].as_py(), size[row].as_py()) for row in rows])


def decoded(data: bytes) -> Image.Image:
    """A picture, upright, RGB; OSError or ValueError if it does not decode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            upright = upright_rgb(image)
            upright.load()
            return upright


def workers_for(asked: int | None) -> int:
    """Processes that decode: as asked, else one a core beside the one that trains."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked if asked is not None else max(1, min(_CPU_WORKERS, cores - 1))


def load(pairs: Pairs, keys: Iterator[list[Key]], workers: int, *, pin: bool) -> Iterator[Loaded]:
    """Batches of pairs by lists of keys, in that order, read ahead by so many processes (0: in this one)."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        pairs,  # type: ignore[arg-type]  # a map-style dataset by what it does
        batch_sampler=_Listed(keys),
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_as_a_worker if workers else None,
    )
    for batch in loader:
        if isinstance(batch, VlmdataError):
            raise batch
        yield batch.pinned() if pin else batch


@dataclass
class _Listed:
    keys: Iterator[list[Key]]

    def __iter__(self) -> Iterator[list[Key]]:
        return self.keys


def _as_it_is(batch: Any) -> Any:
    return batch


def _as_a_worker(worker: int) -> None:
    """Workers stand beside each other: each has one core.

    One that is done ends at once. What other libraries of the parent would do
    at its end waits for threads that a fork does not copy.
    """
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Finalize(None, os._exit, args=(0,), exitpriority=0)
