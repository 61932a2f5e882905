"""How sharp a picture is: the variance of its Laplacian.

Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy: a
comparative study" (ICPR 2000), there LAPV; with the kernel as OpenCV has it,
6 times that of the paper, so that the customary bounds hold.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

LONGER_SIDE = 512
"""Pixels that the longer side is scaled to, up or down: sharpness means nothing without a scale."""


class Sharpness:
    """Variance of the Laplacian of the grey picture, 512 px on its longer side, in squared grey levels of 255.

    0 for a plain colour; under about 20 a photograph is out of focus or shaken,
    or the sky. Noise and print measure high.
    """

    name: ClassVar[str] = "sharpness"
    column: ClassVar[str] = "sharpness"
    too_little: ClassVar[str] = "blurred"
    too_much: ClassVar[str] = "too_sharp"

    def check(self) -> None:
        """Nothing that could be missing."""

    def identity(self) -> str:
        return "sharpness@1"

    def measure(self, image: Image.Image) -> float:
        return _variance(_laplacian(_scaled(image)))


def _scaled(image: Image.Image) -> npt.NDArray[np.int32]:
    scale = LONGER_SIDE / max(image.size)
    # A Laplacian has a value where a pixel has all of its neighbours.
    width, height = (max(3, round(side * scale)) for side in image.size)
    return np.asarray(image.convert("L").resize((width, height), Image.Resampling.LANCZOS), np.int32)


def _laplacian(grey: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Of grey levels (h, w): (h - 2, w - 2)."""
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    result: npt.NDArray[np.int32] = around - 4 * grey[1:-1, 1:-1]
    return result


def _variance(values: npt.NDArray[Any]) -> float:
    """In whole numbers up to the last step, so that it is the same on every machine."""
    n, total, squares = values.size, int(values.sum(dtype=np.int64)), int(np.square(values, dtype=np.int64).sum())
    return (n * squares - total * total) / (n * n)
