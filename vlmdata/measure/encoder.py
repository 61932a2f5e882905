"""Images and texts to embeddings, with whichever open_clip model a config names.

A row's embedding does not depend on what else is in the batch: every batch
goes through the model in one fixed shape (texts of towers that mask their
padding: one shape per length), the tail padded and the padding dropped.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlmdata.errors import ConfigError
from vlmdata.measure.one_core import one_core_threads
from vlmdata.models.source import Description, describe, languages, model_identity, resolve

if TYPE_CHECKING:
    from PIL import Image

    from vlmdata.models.starter.build import Parts

__all__ = ["Description", "Encoder", "describe", "device_of", "load_encoder", "model_identity", "precision_on"]

# Rows of a batch, by kind of device. A CPU wants what its caches hold: four
# pictures at a time run twice as fast there as 32.
IMAGE_BATCH = {"cpu": 4, "cuda": 64}
TEXT_BATCH = {"cpu": 16, "cuda": 256}
# Lengths in tokens that short texts are padded to instead of the whole context,
# where that is the same but for rounding: most captions fit the first.
TEXT_LENGTHS = (16, 32)
Vectors = NDArray[np.float32]
T = TypeVar("T")


class Encoder:
    """One loaded model. Threads may share it: all of its work is done on threads of one core each.

    Attributes:
        model, pretrained: as asked for.
        identity: names the weights' content, as `model_identity` does.
        weights: short sha256 of the state dict's bytes.
        preprocess: open_clip's image preprocessing parameters.
        preprocessing: short sha256 of these.
        precision: "fp32" on a CPU, "bf16" (autocast) on a GPU.
        device: "cpu", "cuda" or "cuda:0".
        dim: length of an embedding.
        languages: BCP-47 primary tags of the languages that the model knows.
        context_length: longest text in tokens; the rest is cut off.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        model: str,
        pretrained: str | None,
        identity: str,
        languages: frozenset[str],
        device: str,
    ) -> None:
        """Take over a loaded model; `load_encoder` is the way in."""
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.model = model
        self.pretrained = pretrained
        self.identity = identity
        self.languages = languages
        self.device = device
        self.precision = precision_on(device)
        self.weights = _state_hash(parts.model)
        self.preprocess = dict(parts.preprocess)
        self.preprocessing = _settings_hash(self.preprocess)
        self._tokenizer = parts.tokenizer
        self.context_length = int(parts.tokenizer.context_length)
        self._pad = masked_padding(parts.model)
        self._lengths = (*(length for length in TEXT_LENGTHS if length < self.context_length), self.context_length)
        self._transform = image_transform_v2(PreprocessCfg(**self.preprocess), is_train=False)
        self._net = parts.model.to(device)
        self._kind = kind = device.split(":")[0]
        # A GPU does one batch after the other anyway, and its memory is for one.
        self._turn: AbstractContextManager[Any] = nullcontext() if kind == "cpu" else threading.Lock()
        self._image_batch, self._text_batch = IMAGE_BATCH[kind], TEXT_BATCH[kind]
        self.dim = int(self._forward(self._net.encode_text, self._tokens([""]).numpy(), 1).shape[1])

    def prepare(self, image: Image.Image) -> Vectors:
        """The model's own evaluation transform of an RGB image: (3, H, W) float32."""
        prepared: Vectors = self._transform(image).numpy()
        return prepared

    def images(self, prepared: Vectors) -> Vectors:
        """Embeddings (n, dim), L2-normalised, of prepared images (n, 3, H, W)."""
        return self._joined(self._embed(self._net.encode_image, prepared, self._image_batch))

    def pictures(self, pictures: Iterable[T], load: Callable[[T], Vectors | None], views: int = 1) -> Iterator[Vectors]:
        """Embeddings of pictures, batch after batch in order: each an array (at most a batch, views, dim).

        `load` gives a picture's views, prepared (views, 3, H, W), beside the
        model's work on other batches. NaN where it gives None.
        """

        def embed(batch: list[T]) -> Vectors:
            prepared = [load(picture) for picture in batch]
            vectors = np.full((len(batch), views, self.dim), np.nan, np.float32)
            if readable := [one for one in prepared if one is not None]:
                there = np.array([one is not None for one in prepared])
                for view in range(views):
                    rows = np.stack([one[view] for one in readable])
                    vectors[there, view] = self._forward(self._net.encode_image, rows, self._image_batch)
            return vectors

        return one_core_threads().map(embed, _batches(pictures, self._image_batch))

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Embeddings (n, dim), L2-normalised, of texts; what is over the context is cut off."""
        tokens = self._tokens(texts)
        lengths = self._shape_of(tokens)
        vectors = np.empty((len(tokens), self.dim), np.float32)
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            cut = tokens[rows, : int(length)].numpy()
            vectors[rows] = self._joined(self._embed(self._net.encode_text, cut, self._text_batch))
        return vectors

    def token_counts(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Tokens of each text, start and end marks among them: (n). One over the context means that it did not fit."""
        if not texts:
            return np.empty(0, np.int32)
        # With one place more than the model reads, the last is filled exactly if the text did not fit.
        rows = np.asarray(self._tokenizer(["", "a " * self.context_length, *texts], self.context_length + 1))
        padding, last = rows[0, -1], rows.shape[1]
        used = last - np.argmax(rows[:, ::-1] != padding, axis=1)
        # Some tokenizers write the end mark as padding.
        ends_as_padding = int(rows[1, -1] == padding)
        counts: NDArray[np.int32] = (used[2:] + ends_as_padding).astype(np.int32)
        return counts

    def _tokens(self, texts: Sequence[str]) -> Any:
        import torch

        if not texts:
            return torch.empty((0, self.context_length), dtype=torch.long)
        return self._tokenizer(list(texts))

    def _shape_of(self, tokens: Any) -> NDArray[np.int64]:
        """The padded length that each row is embedded at; depends on that row alone."""
        if self._pad is None:
            return np.full(len(tokens), self.context_length, np.int64)
        used = (tokens != self._pad).sum(dim=1).numpy()
        bounds = np.array(self._lengths, np.int64)
        chosen: NDArray[np.int64] = bounds[np.searchsorted(bounds, used)]
        return chosen

    def _embed(self, encode: Callable[..., Any], rows: NDArray[Any], batch: int) -> Iterator[Vectors]:
        chunks = (rows[start : start + batch] for start in range(0, len(rows), batch))
        return one_core_threads().map(lambda chunk: self._forward(encode, chunk, batch), chunks)

    def _joined(self, parts: Iterable[Vectors]) -> Vectors:
        return np.concatenate([np.empty((0, self.dim), np.float32), *parts])

    def _forward(self, encode: Callable[..., Any], rows: NDArray[Any], batch: int) -> Vectors:
        import torch

        padded = torch.zeros((batch, *rows.shape[1:]), dtype=torch.float32 if rows.dtype.kind == "f" else torch.long)
        padded[: len(rows)] = torch.from_numpy(np.ascontiguousarray(rows))
        if padded.ndim == 4:
            # Convolutions run faster in this layout; other models take it as it is.
            padded = padded.contiguous(memory_format=torch.channels_last)
        low = torch.autocast(self._kind, dtype=torch.bfloat16, enabled=self.precision == "bf16")
        with self._turn, torch.inference_mode(), low:
            vectors = encode(padded.to(self.device))[: len(rows)]
            unit: Vectors = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
        return unit


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def load_encoder(model: str, pretrained: str | None = None, device: str = "auto") -> Encoder:
    """The encoder of a model, loaded once per process whichever threads ask for it.

    `model` is "starter", an open_clip name (with a tag or a local file as
    `pretrained`), "hf-hub:owner/name", or a folder that holds
    `open_clip_config.json` and weights. `device` "auto" takes a GPU if there is one.

    Raises:
        ConfigError: the model, tag, weights or device cannot be had; one line says what to change.
    """
    place = device_of(device)
    identity = model_identity(model, pretrained)
    key = (model, pretrained, identity, place)
    with _loading:
        if key not in _loaded:
            _loaded[key] = _load(model, pretrained, identity, place)
        return _loaded[key]


_loading = threading.Lock()
_loaded: dict[tuple[str, str | None, str, str], Encoder] = {}


def _load(model: str, pretrained: str | None, identity: str, device: str) -> Encoder:
    from vlmdata.models.load import load_parts

    source = resolve(model, pretrained)
    return Encoder(
        load_parts(source),
        model=model,
        pretrained=pretrained,
        identity=identity,
        languages=languages(source),
        device=device,
    )


def precision_on(device: str) -> Literal["fp32", "bf16"]:
    """What a model computes with on a device ("auto", "cpu", "cuda", "cuda:0").

    Raises:
        ConfigError: the device is not there.
    """
    return "fp32" if device_of(device) == "cpu" else "bf16"


def device_of(wanted: str) -> str:
    """The device that is meant: "auto" is a GPU if there is one.

    Raises:
        ConfigError: it is not there.
    """
    if wanted == "cpu":
        return wanted
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))}
    if torch.cuda.is_available():
        there.add("cuda")
    if wanted not in there:
        raise ConfigError(f"device: {wanted!r} is not there; expected auto, {', '.join(sorted(there))}")
    return wanted


def masked_padding(net: Any) -> int | None:
    """The token that texts are padded with, if the model's text tower masks it; None: what it pads, it reads."""
    from open_clip.hf_model import HFTextEncoder

    text = getattr(net, "text", None)
    return int(text.config.pad_token_id) if isinstance(text, HFTextEncoder) else None


def _state_hash(net: Any) -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()[:16]


def _settings_hash(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
