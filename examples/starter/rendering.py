"""Drawings as PNG files, and which of them look alike."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from starter.drawings import Drawing
from starter.stamps import Stamp

BOX = 320
RENDER_SECONDS = 20


def render(drawings: Iterable[Drawing], folder: Path) -> dict[str, Path]:
    """Each drawing as a PNG of at most BOX pixels a side on white; what does not render is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    unique = {drawing.key: drawing.svg for drawing in drawings}
    paths = {key: folder / f"{key}.png" for key in unique}

    def draw(key: str) -> None:
        if not paths[key].exists():
            paths[key].write_bytes(rasterise(unique[key].encode()))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(draw, unique))
    return {key: path for key, path in paths.items() if path.stat().st_size}


def render_stamps(found: Iterable[Stamp], folder: Path) -> dict[str, Path]:
    """The stamps' pictures by key: PNG as they are, SVG rendered."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for stamp in found:
        own = stamp.picture.suffix == ".png"
        paths[stamp.key] = stamp.picture if own else folder / f"{stamp.key}.png"
        if not paths[stamp.key].exists():
            paths[stamp.key].write_bytes(rasterise(stamp.picture.read_bytes()))
    return {key: path for key, path in paths.items() if path.stat().st_size}


def apart(drawings: Iterable[Drawing], pictures: dict[str, Path], measured_on: Iterable[Path]) -> list[Drawing]:
    """Drawings that look like none of the pictures that measure (pHash distance over 8)."""
    against = hashes([*measured_on])
    shown = [drawing for drawing in drawings if drawing.key in pictures]
    own = hashes([pictures[drawing.key] for drawing in shown])
    nearest = np.array([np.bitwise_count(against ^ value).min() for value in own])
    return [drawing for drawing, distance in zip(shown, nearest, strict=True) if distance > 8]


def hashes(paths: list[Path]) -> Any:
    """64-bit perceptual hashes (n,) uint64."""
    import imagehash

    return np.array([int(str(imagehash.phash(view_of(path, 0, ""))), 16) for path in paths], np.uint64)


def rasterise(svg: bytes) -> bytes:
    """An SVG as PNG on white; empty if the renderer gives up."""
    size = [f"--width={BOX}", f"--height={BOX}", "--keep-aspect-ratio", "--background-color=white"]
    try:
        done = subprocess.run(["rsvg-convert", *size], input=svg, capture_output=True, timeout=RENDER_SECONDS)
    except subprocess.TimeoutExpired:
        return b""
    return done.stdout if done.returncode == 0 else b""


def view_of(path: Path, view: int, key: str) -> Any:
    """A picture on white: whole as view 0, else a mirrored crop that its key and the view decide."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        picture = Image.new("RGBA", image.size, "white")
        picture.alpha_composite(image.convert("RGBA"))
        picture = picture.convert("RGB")
    if view == 0:
        return picture
    random = np.random.default_rng([view, int(key, 16)])
    share = random.uniform(0.6, 1.0, 2)
    width, height = (max(1, round(side * part)) for side, part in zip(picture.size, share, strict=True))
    left, top = (
        int(random.integers(0, side - part + 1)) for side, part in zip(picture.size, (width, height), strict=True)
    )
    return ImageOps.mirror(picture.crop((left, top, left + width, top + height)))
