"""Who opted out by a picture's look is left alone within the radius of near-duplicates, and nobody beyond it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from vlmdata.config import DedupConfig, FilterConfig
from vlmdata.filtering.decide import judge
from vlmdata.filtering.rules import rules
from vlmdata.measure.phash import phash_tiles, tile
from vlmdata.opt_out import OptOut
from vlmdata.schema import FACTS, SAMPLES

RADIUS = 8
NAMED = pa.schema([*FACTS, SAMPLES.field("url"), SAMPLES.field("sha256")])


def hash_of(seed: int) -> int:
    """Of a picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return int(phash_tiles(np.frombuffer(tile(Image.fromarray(pixels)), np.uint8).reshape(1, 32, 32))[0])


def turned(phash: int, bits: int) -> int:
    """So many bits of it, spread over all 64."""
    return phash ^ sum(1 << (5 + 6 * bit) for bit in range(bits))


def reasons(phashes: list[int | None], listed: list[int], radius: int = RADIUS) -> list[str | None]:
    """Of each picture, why it goes; None: it stays. Without a hash it is one that does not decode."""
    rows = [
        {"id": f"id{n}", "sha256": "0" * 64, "phash": phash, "width": 300, "height": 300, "retryable": False}
        | ({"error": "corrupt"} if phash is None else {})
        for n, phash in enumerate(phashes)
    ]
    table = pa.Table.from_pylist(rows, schema=NAMED)
    opt_out = OptOut(phashes=np.array(sorted(listed), np.uint64), digest="some")
    asked = rules(FilterConfig(), DedupConfig(max_distance=radius), opt_out)
    passes, rejects = judge(table["id"], table, asked)
    told = {row["id"]: row["code"] for row in rejects.to_pylist()}
    assert [row["id"] in told for row in rows] == [not passed for passed in passes.to_pylist()]
    return [told.get(row["id"]) for row in rows]


@pytest.mark.parametrize("radius", [0, 3, RADIUS])
def test_a_look_within_the_radius_is_left_alone_and_one_a_bit_beyond_it_stays(radius: int) -> None:
    first, second, third = map(hash_of, range(3))
    listed = [turned(first, radius), turned(second, radius + 1)]
    assert reasons([third, first, second, first], listed, radius) == [None, "opted_out", None, "opted_out"]


def test_a_list_without_looks_rejects_nobody_by_theirs() -> None:
    assert reasons([hash_of(0), None], []) == [None, "corrupt"]


@pytest.mark.parametrize("bits", [0, RADIUS, RADIUS + 1])
def test_a_picture_that_does_not_decode_changes_nothing_for_those_beside_it(bits: int) -> None:
    """Hashes in a column with a gap are the same 64 bits: of a float of them only 53 would be left."""
    whole = [hash_of(seed) for seed in range(40)]
    expected = [None if bits > RADIUS else "opted_out"] * len(whole)
    listed = [turned(phash, bits) for phash in whole]
    assert reasons([None, *whole], listed) == ["corrupt", *expected]


def test_a_hash_of_ones_is_compared_beside_a_picture_that_does_not_decode() -> None:
    ones = 2**64 - 1
    assert reasons([ones, None], [ones]) == ["opted_out", "corrupt"]
    assert reasons([ones, None], [0]) == [None, "corrupt"]
