"""Who looks alike shares a split: embeddings that are given, through the whole selection."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.unit.export.selection.test_select import BY_HASH, SHARES, export
from vlmdata.checkpoint import Counts, Dataset, Result, Shard
from vlmdata.config import QualityConfig
from vlmdata.config_reading import parse_config
from vlmdata.export.selection.select import select
from vlmdata.layout import Step
from vlmdata.quality.embeddings import embedding_settings, vector_column
from vlmdata.quality.judges import judges
from vlmdata.quality.pictures import one_pass


def seen(dataset: Dataset, shard: Shard, quality: QualityConfig, vectors: Mapping[str, Sequence[float]]) -> Shard:
    """The checkpoint that a model would leave which embeds pictures so, by key."""
    samples = dataset.read(shard, Step.CAPTIONED, "samples", ["id", "key"])
    rows = np.array([vectors[key] for key in samples["key"].to_pylist()], np.float32)
    table = samples.select(["id"]).append_column("embedding", vector_column(rows))
    result = Result({"images": table}, samples=Counts(came=len(rows), kept=len(rows)))
    wanted = {"seen": (Step.EMBEDDINGS, embedding_settings(judges(quality).default, quality.device))}
    one_pass(dataset, shard, wanted, lambda _: {"seen": result})
    return shard


def chosen(built: Any, **by: Any) -> tuple[dict[str, str], int]:
    """The split of each, by key, and how many of the largest group belong together."""
    config = parse_config({**built.config.model_dump(), **export(split_by={**BY_HASH, **by})})
    selected = select(built.dataset, built.shards, config)[0]
    keys = {row["id"]: row["key"] for row in built.rows(Step.CHECKED, "samples")}
    rows = built.dataset.read(selected, Step.SELECTED, "selected").to_pylist()
    largest = built.dataset.manifest(selected, Step.SELECTED).facts["largest"]
    return {keys[row["id"]]: row["split"] for row in rows}, largest


def close(built: Any, one: str, other: str, third: str, *others: str) -> None:
    """The cosine of one and the other is 0.96, of one and the third 0.94, of these two 0.81, of any other pair 0."""
    keys = [one, other, third, *others]
    vectors = dict(zip(keys, np.eye(len(keys)).tolist(), strict=True))
    vectors[other][:2] = [0.96, 0.28]
    vectors[third][:3] = [0.94, -0.34, 0.0]
    built.each(seen, built.config.quality, vectors)


def patched(image: Image.Image, left: int) -> bytes:
    """A picture of which a corner differs: its hash is a few bits off."""
    image = image.copy()
    image.paste(ImageOps.invert(image.crop((left, 0, left + 10, 10))), (left, 0))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def judged(tiny: Callable[..., Any]) -> Callable[..., Any]:
    """Pictures as 03 lets them through, three in a shard, each with its name for a caption."""

    def make(files: dict[str, bytes]) -> Any:
        own = {"shard_size": 3, "quality": {"device": "cpu"}, "dedup": {"max_distance": 0}}
        start = tiny(files, {name: [name] for name in files}, **own)
        return start.ingested().filtered().captioned().judged({})

    return make


def joined_as_the_bound_falls(
    built: Any, setting: str, one: str, other: str, third: str, apart: dict[str, str]
) -> None:
    """Alone, then with the other, then with the third: as close as `close` has made them."""
    for at_least, together in ((0.97, {one}), (0.95, {one, other}), (0.93, {one, other, third})):
        split, largest = chosen(built, **{setting: at_least})
        assert largest == len(together)
        assert len({split[key] for key in together}) == 1
        assert (split == apart) == (together == {one})


def test_whoever_looks_nearly_the_same_belongs_together(judged: Callable[..., Any], pictures: Any) -> None:
    built = judged({f"{n}.png": pictures.png(n) for n in range(8)})
    apart, largest = chosen(built)
    assert largest == 1, "no two have hashes that are close"
    one, other, third = (next(key for key in apart if apart[key] == split) for split in SHARES)
    close(built, one, other, third, *(apart.keys() - {one, other, third}))
    joined_as_the_bound_falls(built, "cosine", one, other, third, apart)


def test_where_looks_confirm_whoever_has_a_close_hash_and_another_look_is_free(
    judged: Callable[..., Any], pictures: Any
) -> None:
    made = {n: pictures.picture(n) for n in range(8)}
    built = judged({f"{n} {left}.png": patched(image, left) for n, image in made.items() for left in (0, 27, 54)})
    apart, _ = chosen(built, max_distance=None)
    families = [[key for key in apart if key.split()[0] == str(n)] for n in made]
    one, other, third = next(keys for keys in families if len({apart[key] for key in keys}) == 3)
    by_hash, _ = chosen(built)
    assert len({by_hash[key] for key in (one, other, third)}) == 1
    close(built, one, other, third, *(apart.keys() - {one, other, third}))
    joined_as_the_bound_falls(built, "confirm", one, other, third, apart)
