import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from vlmdata.measure.phash import phash_tiles, tile


def hashes_of(images):
    tiles = np.frombuffer(b"".join(tile(image) for image in images), dtype=np.uint8)
    return [f"{value:016x}" for value in phash_tiles(tiles.reshape(-1, 32, 32))]


def imagehashes_of(images):
    return [str(imagehash.phash(image)) for image in images]


def pattern(values):
    return Image.fromarray((values % 256).astype(np.uint8)).convert("RGB")


def scenery(seed):
    """A stand-in for a photograph: soft shapes, a horizon and grain."""
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(40, 300, 2))
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, radius = (int(value) for value in rng.integers(0, 200, 3))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(2)), dtype=np.int16)
    return Image.fromarray(np.clip(soft + rng.integers(-9, 10, soft.shape), 0, 255).astype(np.uint8))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 90))
def test_noise_of_any_shape_has_the_bits_of_imagehash(seed, width, height):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    assert hashes_of([image]) == imagehashes_of([image])


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 255), st.sampled_from(["rows", "columns", "mirror", "turn"]))
def test_symmetric_tiles_where_rounding_decides_have_the_bits_of_imagehash(seed, level, symmetry):
    values = np.random.default_rng(seed).integers(0, 2, (32, 32)) * level
    values = {
        "rows": np.broadcast_to(values[:1], values.shape),
        "columns": np.broadcast_to(values[:, :1], values.shape),
        "mirror": np.maximum(values, values[::-1]),
        "turn": np.maximum(values, values.T),
    }[symmetry]
    assert hashes_of([pattern(values)]) == imagehashes_of([pattern(values)])


def test_every_flat_picture_has_the_bits_of_imagehash():
    flat = [Image.new("RGB", (40, 30), (level, level, level)) for level in range(256)]
    assert hashes_of(flat) == imagehashes_of(flat)


def test_gradients_and_stripes_have_the_bits_of_imagehash():
    y, x = np.mgrid[:64, :64]
    images = [
        pattern(values)
        for step in range(1, 17)
        for values in (
            x * step,
            y * step,
            (x + y) * step,
            x // step % 2 * 255,
            (x // step + y // step) % 2 * 255,
        )
    ]
    assert hashes_of(images) == imagehashes_of(images)


def test_scenery_has_the_bits_of_imagehash_and_few_pictures_share_them():
    images = [scenery(seed) for seed in range(150)]
    hashes = hashes_of(images)
    assert hashes == imagehashes_of(images)
    assert len(set(hashes)) > 140


@settings(deadline=None)
@given(st.integers(0, 200))
def test_a_hash_does_not_depend_on_the_batch(count):
    tiles = np.random.default_rng(count).integers(0, 256, (count, 32, 32), dtype=np.uint8)
    one_by_one = [phash_tiles(tiles[position : position + 1])[0] for position in range(count)]
    assert phash_tiles(tiles).tolist() == one_by_one


def test_tiles_may_be_strided_and_read_only():
    tiles = np.random.default_rng(1).integers(0, 256, (10, 32, 32), dtype=np.uint8)
    tiles.flags.writeable = False
    assert phash_tiles(tiles[::-2]).tolist() == phash_tiles(tiles)[::-2].tolist()


@pytest.mark.parametrize(
    "tiles",
    [np.zeros((2, 32, 31), np.uint8), np.zeros((32, 32), np.uint8), np.zeros((1, 32, 32), np.float64)],
)
def test_other_shapes_and_types_are_refused(tiles):
    with pytest.raises(ValueError, match=r"expected uint8 of shape \(n, 32, 32\)"):
        phash_tiles(tiles)
