"""How much of a picture is text: the area of the lines that PaddleOCR's models read, from the package `rapidocr`.

Lines are read, not only found: to the detector alone, a thing on a white
ground is a letter. For the same reason one letter by itself is no text. The
weights (Apache-2.0) lie in the package as ONNX: nothing is downloaded or
unpickled. https://github.com/RapidAI/RapidOCR
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from vlmdata.quality.scorers.base import file_of, named, require

_MODULE = _PACKAGE = "rapidocr"
_DETECTOR, _READER = "models/PP-OCRv6_det_small.onnx", "models/PP-OCRv6_rec_small.onnx"
_LONGER_SIDE = 736
"""Pixels of the longer side at most that are looked at: print too small for that covers no area."""
_SHORTEST_LINE = 2
"""Characters."""
_SURE = 0.8
"""Mean probability of a line's characters from which it counts as read."""


class TextInPicture:
    """Share of the picture's area, 0 to 1, that the boxes around its lines of text cover."""

    name: ClassVar[str] = "text"
    column: ClassVar[str] = "text_area"
    too_little: ClassVar[str] = "no_text_in_picture"
    too_much: ClassVar[str] = "text_in_picture"

    def __init__(self) -> None:
        self._own = threading.local()

    def check(self) -> None:
        require(self.name, _MODULE, _PACKAGE, "ocr")
        require(self.name, "onnxruntime", "onnxruntime", "ocr")
        self._weights()

    def identity(self) -> str:
        self.check()
        return named("text@1", _PACKAGE, self._weights())

    def measure(self, image: Image.Image) -> float:
        image = image.copy()
        image.thumbnail((_LONGER_SIDE, _LONGER_SIDE))
        found = self._ocr(image, use_det=True, use_cls=False, use_rec=True)
        lines = zip(found.boxes, found.txts, strict=True) if found.txts else ()
        return covered([box for box, text in lines if len(text.strip()) >= _SHORTEST_LINE], *image.size)

    def _weights(self) -> list[Path]:
        return [file_of(self.name, _MODULE, name) for name in (_DETECTOR, _READER)]

    @property
    def _ocr(self) -> Any:
        """One a thread: it keeps what it is doing in itself."""
        if not hasattr(self._own, "ocr"):
            self._own.ocr = _load(*map(str, self._weights()))
        return self._own.ocr


def covered(boxes: Sequence[Any], width: int, height: int) -> float:
    """Share of a picture's pixels under at least one of the boxes (n, 4 corners, x and y)."""
    mask = Image.new("1", (width, height))
    draw = ImageDraw.Draw(mask)
    for box in boxes:
        draw.polygon([(float(x), float(y)) for x, y in box], fill=1)
    return float(np.asarray(mask).mean())


def _load(detector: str, reader: str) -> Any:
    from rapidocr import RapidOCR

    settings = {
        "Global.log_level": "critical",
        "Global.text_score": _SURE,
        "Det.model_path": detector,
        "Rec.model_path": reader,
        "Det.limit_type": "max",
        "Det.limit_side_len": _LONGER_SIDE,
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    }
    return RapidOCR(params=settings)
