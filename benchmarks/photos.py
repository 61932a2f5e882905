"""Photographs for the benchmarks: crops of those in Debian's `plasma-workspace-wallpapers`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PACKAGE = "plasma-workspace-wallpapers"
PHOTOGRAPHS = (
    "BytheWater",
    "ColdRipple",
    "ColorfulCups",
    "DarkestHour",
    "EveningGlow",
    "FallenLeaf",
    "Grey",
    "Kite",
    "OneStandsOut",
    "Path",
    "summer_1am",
)
"""What is a photograph in the package; the others are drawn."""
CACHE = Path(__file__).resolve().parents[1] / "build" / "photos"
QUALITY = 92
_SHAPES = ((4, 3), (3, 2), (1, 1), (2, 3), (3, 4))
_ZOOMS = (1.2, 3.0)
"""Pixels of the photograph that go into one of the crop, a side: none is blown up."""


def photos(n: int = 1000, side: int = 500) -> list[bytes]:
    """`n` distinct photographic JPEGs of quality 92 whose longer side is `side` px; picture i is always the same.

    They are kept in `build/photos`. The package is looked for on this machine,
    else fetched with `apt-get download`, which needs no root.

    Raises:
        SystemExit: the package cannot be had; one line says what to install.
    """
    return [path.read_bytes() for path in photo_files(n, side)]


def photo_files(n: int = 1000, side: int = 500) -> list[Path]:
    """The files of `photos(n, side)`."""
    folder = CACHE / f"{side}px"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(n)]
    missing = [number for number, path in enumerate(paths) if not path.is_file()]
    if missing:
        _cut(missing, side, folder)
    return paths


def _cut(numbers: list[int], side: int, folder: Path) -> None:
    """Write crops; one photograph is decoded at a time."""
    sources = _sources()
    for position, source in enumerate(sources):
        mine = [number for number in numbers if number % len(sources) == position]
        if not mine:
            continue
        with Image.open(source) as image:
            whole = image.convert("RGB")
        for number in mine:
            _save(_crop(whole, side, np.random.default_rng([side, number])), folder / f"{number:05d}.jpg")


def _crop(whole: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """A part of the photograph, somewhere, of some shape and scale."""
    shape = np.array(_SHAPES[rng.integers(len(_SHAPES))])
    size = np.round(side * shape / shape.max()).astype(int)
    zoom = min(rng.uniform(*_ZOOMS), whole.width / size[0], whole.height / size[1])
    corner = rng.uniform(0, np.array(whole.size) - size * zoom)
    box: Any = (*corner, *np.minimum(corner + size * zoom, whole.size))
    return whole.resize((int(size[0]), int(size[1])), Image.Resampling.LANCZOS, box=box)


def _save(image: Image.Image, path: Path) -> None:
    """Whole or not at all: a benchmark may be interrupted."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    with os.fdopen(handle, "wb") as file:
        image.save(file, "JPEG", quality=QUALITY)
    Path(temporary).replace(path)


def _sources() -> list[Path]:
    """The package's photographs, largest version of each."""
    for root in (Path("/"), CACHE / PACKAGE):
        found = _photographs_below(root)
        if found:
            return found
    _fetch()
    found = _photographs_below(CACHE / PACKAGE)
    if not found:
        raise SystemExit(f"benchmarks: {PACKAGE} holds none of {', '.join(PHOTOGRAPHS)}; use Debian 12's")
    return found


def _photographs_below(root: Path) -> list[Path]:
    folders = [root / "usr/share/wallpapers" / name / "contents/images" for name in PHOTOGRAPHS]
    versions = [list(folder.glob("*.jpg")) for folder in folders if folder.is_dir()]
    return [max(files, key=lambda file: file.stat().st_size) for files in versions if files]


def _fetch() -> None:
    """Unpack the package into the cache."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True, capture_output=True)
            archive = next(Path(folder).glob("*.deb"))
            subprocess.run(["dpkg", "-x", str(archive), str(CACHE / PACKAGE)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError, StopIteration):
            raise SystemExit(
                f"benchmarks: no photographs: apt-get download {PACKAGE} failed; "
                f"install Debian's package {PACKAGE}, or run `apt-get update` first"
            ) from None
