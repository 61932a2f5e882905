"""What the frozen towers say of pictures and captions, kept between runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from starter.rendering import view_of
from vlmdata.models.starter.bridge import sentences

CHUNK = 1_024
SAVE_EVERY = 8 * CHUNK


@dataclass(frozen=True)
class Towers:
    """The untrained model, and a folder that keeps what its towers said.

    `reader` names the text tower there: several models share the folder and the image tower.
    """

    parts: Any
    cache: Path
    reader: str
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def images(self, pictures: dict[str, Path], view: int) -> dict[str, Any]:
        """Pooled features (1280,) of each picture by key; view 0 is as scored, others are crops of it."""
        return self._kept(f"images-{view}", list(pictures), lambda keys: self._look(pictures, keys, view))

    def texts(self, captions: Iterable[str]) -> dict[str, Any]:
        """Sentence vectors (384,), normalised, by caption."""
        return self._kept(self.reader, list(dict.fromkeys(captions)), self._read)

    def _kept(self, name: str, keys: list[str], compute: Callable[[list[str]], Any]) -> dict[str, Any]:
        known = self.known.setdefault(name, {}) or self._load(name)
        missing = [key for key in keys if key not in known]
        for start in range(0, len(missing), CHUNK):
            some = missing[start : start + CHUNK]
            known.update(zip(some, compute(some), strict=True))
            done = start + len(some)
            print(f"{name}: {done} of {len(missing)}", flush=True)
            if done == len(missing) or done % SAVE_EVERY == 0:
                np.savez(self._file(name), keys=np.array(list(known)), vectors=np.stack(list(known.values())))
        return {key: known[key] for key in keys}

    def _load(self, name: str) -> dict[str, Any]:
        if self._file(name).exists():
            with np.load(self._file(name)) as saved:
                self.known[name].update(zip(saved["keys"].tolist(), saved["vectors"], strict=True))
        return self.known[name]

    def _file(self, name: str) -> Path:
        return self.cache / f"{name}.npz"

    def _look(self, pictures: dict[str, Path], keys: list[str], view: int) -> Any:
        import torch
        from open_clip.transform import PreprocessCfg, image_transform_v2

        prepare, batches = image_transform_v2(PreprocessCfg(**self.parts.preprocess), is_train=False), []
        with torch.inference_mode():
            for some in _chunks(keys, 32):
                batch = torch.stack([prepare(view_of(pictures[key], view, key)) for key in some])
                batches.append(self.parts.model.visual.trunk(batch).numpy())
        return np.concatenate(batches)

    def _read(self, captions: list[str]) -> Any:
        return sentences(self.parts, captions).numpy()


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
