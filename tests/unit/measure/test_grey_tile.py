"""The quick tile has the bits of Pillow's, whatever the picture's shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmdata.measure import grey_tile, tile_kernel
from vlmdata.measure.pixels import tile


@pytest.fixture(params=["matrices", "kernel"], scope="module")
def quick(request: pytest.FixtureRequest) -> grey_tile.Tile:
    return grey_tile.faster(tile, tile_kernel.shrink if request.param == "kernel" else None)


def pictures(width: int, height: int, seed: int) -> Iterator[Image.Image]:
    rng = np.random.default_rng(seed)
    yield Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    # The filter overshoots most at hard edges, where rounding and clipping tell.
    yield Image.fromarray(255 * rng.integers(0, 2, (height, width, 3), np.uint8))


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**32 - 1))
def test_bits_are_pillows(quick: grey_tile.Tile, width: int, height: int, seed: int) -> None:
    for picture in pictures(width, height, seed):
        assert quick(picture) == tile(picture)


def test_bits_are_pillows_where_one_side_is_long(quick: grey_tile.Tile) -> None:
    for width, height in ((6000, 70), (70, 6000), (3001, 1999), (64, 96), (64, 97), (2000, 3968), (2000, 3969)):
        for picture in pictures(width, height, seed=1):
            assert quick(picture) == tile(picture)


def test_photographs_are_not_left_to_pillow() -> None:
    asked: list[tuple[int, int]] = []

    def plain(image: Image.Image) -> bytes:
        asked.append(image.size)
        return tile(image)

    quick = grey_tile.faster(plain)
    asked.clear()
    for width, height in ((500, 375), (375, 500), (64, 64), (4000, 300)):
        quick(next(pictures(width, height, seed=2)))
    assert not asked


def test_another_filter_is_noticed_and_kept() -> None:
    def other(image: Image.Image) -> bytes:
        return image.convert("L").resize((32, 32), Image.Resampling.BICUBIC).tobytes()

    assert grey_tile.faster(other) is other


def test_a_kernel_with_other_bits_is_noticed() -> None:
    def darker(*arguments: Any) -> Any:
        return tile_kernel.shrink(*arguments) // 2

    assert grey_tile.faster(tile, darker) is tile


def test_photographs_go_to_the_kernel_and_pictures_in_pieces_do_not() -> None:
    asked: list[tuple[int, ...]] = []

    def kernel(pixels: Any, *spans: Any) -> Any:
        asked.append(pixels.shape)
        return tile_kernel.shrink(pixels, *spans)

    quick = grey_tile.faster(tile, kernel)
    asked.clear()
    # Pillow keeps 16 MB in a piece.
    for width, height in ((500, 375), (3000, 2000)):
        picture = next(pictures(width, height, seed=3))
        assert quick(picture) == tile(picture)
    assert asked == [(375, 500)]
