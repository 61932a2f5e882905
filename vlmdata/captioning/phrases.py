"""The stand-in captioner: the phrase of a vocabulary that lies nearest a picture, as a sentence."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlmdata.captioning.vocabulary import TEMPLATE, embeddings, phrases

if TYPE_CHECKING:
    from vlmdata.measure.encoder import Encoder

LARGEST_BATCH = 32
GATHERING_S = 0.01
"""How long the first picture of a batch waits for others."""

_Place = tuple[asyncio.Future[list[str]], int]
"""The texts that a batch will have, and a picture's row among them."""


class PhraseCaptioner:
    """Captions pictures with an encoder; the same picture always gets the same words.

    The model is loaded when the first picture comes (or by `warm_up`), so that
    a server that nobody asks costs nothing.
    """

    def __init__(self, model: str, load: Callable[[], Encoder]) -> None:
        self.model = model
        self._load = load
        self._loading = threading.Lock()
        self._loaded: tuple[Encoder, Any] | None = None
        self._phrases = phrases()

    def warm_up(self) -> tuple[Encoder, Any]:
        """The encoder and the phrases' embeddings, loaded once."""
        with self._loading:
            if self._loaded is None:
                encoder = self._load()
                self._loaded = (encoder, embeddings(encoder))
            return self._loaded

    def prepare(self, image: Any) -> Any:
        """An upright RGB picture as the encoder's input, float32 (3, H, W)."""
        return self.warm_up()[0].prepare(image)

    def captions(self, prepared: list[Any]) -> list[str]:
        """One sentence for each prepared picture."""
        import numpy as np

        encoder, places = self.warm_up()
        vectors = encoder.images(np.stack(prepared))
        # A row at a time: a product of matrices rounds differently for other row counts.
        best = [int(np.argmax(places @ vector)) for vector in vectors]
        return [TEMPLATE.format(self._phrases[place]) for place in best]


@dataclass
class Batcher:
    """Gathers pictures that arrive together, so that the encoder's batch is used."""

    captioner: PhraseCaptioner
    _waiting: asyncio.Queue[tuple[Any, asyncio.Future[_Place]]] = field(default_factory=asyncio.Queue)
    # One thread: the forward pass uses every core already.
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    async def caption(self, prepared: Any) -> str:
        """The picture's caption, when its batch is done; raises what the encoder raised."""
        place: asyncio.Future[_Place] = asyncio.get_running_loop().create_future()
        await self._waiting.put((prepared, place))
        texts, row = await place
        return (await asyncio.shield(texts))[row]

    async def run(self) -> None:
        """Serve batches until cancelled."""
        while True:
            batch = await self._gather()
            pictures = [prepared for prepared, _ in batch]
            texts = asyncio.get_running_loop().run_in_executor(self._thread, self.captioner.captions, pictures)
            for row, (_, place) in enumerate(batch):
                if not place.done():
                    place.set_result((texts, row))
            await asyncio.wait([texts])

    async def _gather(self) -> list[tuple[Any, asyncio.Future[_Place]]]:
        batch = [await self._waiting.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHERING_S):
                while len(batch) < LARGEST_BATCH:
                    batch.append(await self._waiting.get())
        return batch
