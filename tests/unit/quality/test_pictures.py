"""One pass over a shard's pictures makes the checkpoints that are missing, and no other."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from vlmdata.checkpoint import Counts, Result
from vlmdata.layout import Step
from vlmdata.quality.pictures import ids_of, one_pass, opened, pictures_of


@pytest.fixture
def captioned(pictures: Any, tiny: Callable[..., Any]) -> Any:
    files = {f"{seed}.png": pictures.png(seed) for seed in range(3)}
    captions = {name: [name] for name in files}
    return tiny(files, captions, shard_size=3).ingested().filtered().captioned()


def test_what_is_there_is_not_made_again(captioned: Any) -> None:
    asked: list[list[str]] = []

    def work(missing: Sequence[str]) -> dict[str, Result]:
        asked.append(list(missing))
        return {name: Result({"t": pa.table({"name": [name]})}, samples=Counts(came=1, kept=1)) for name in missing}

    [shard] = captioned.shards
    wanted = {name: (Step.MARKS, {"name": name}) for name in "abc"}
    first = one_pass(captioned.dataset, shard, {"b": wanted["b"]}, work)
    found = one_pass(captioned.dataset, shard, wanted, work)
    again = one_pass(captioned.dataset, shard, wanted, work)
    assert asked == [["b"], ["a", "c"]]
    assert found == again and list(found) == ["a", "b", "c"] and found["b"] == first["b"]
    assert captioned.dataset.table(found["c"].tables["t"])["name"].to_pylist() == ["c"]


def test_pictures_come_in_the_order_of_the_samples(captioned: Any, pictures: Any) -> None:
    [shard] = captioned.shards
    ids = ids_of(captioned.dataset, shard)
    found = pictures_of(captioned.dataset, shard, ids)
    samples = captioned.rows(Step.CAPTIONED, "samples")
    assert ids.to_pylist() == [row["id"] for row in samples]
    assert [bytes(one) for one in found] == [pictures.png(int(row["key"][0])) for row in samples]
    assert [bytes(one) for one in pictures_of(captioned.dataset, shard, ids[::-1][:2])] == [
        bytes(one) for one in found[::-1][:2]
    ]


def test_a_picture_is_opened_upright_in_rgb_and_a_broken_one_is_none(pictures: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    pictures.picture(1, 60, 40).save(turned, "JPEG", exif=exif)
    assert (image := opened(turned.getvalue())) is not None and (image.mode, image.size) == ("RGB", (40, 60))
    assert (clear := opened(pictures.encode(Image.new("RGBA", (4, 4), (0, 0, 0, 0))))) is not None
    assert clear.getpixel((1, 1)) == (255, 255, 255)
    for broken in (b"", b"no picture", pictures.png(1)[:-60]):
        assert opened(broken) is None
