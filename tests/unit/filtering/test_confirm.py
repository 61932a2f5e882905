"""A picture whose hash is another's goes only if it looks like it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from expectations.gate import check_stage
from tests.unit.growing import Growing
from vlmdata.checkpoint import Shard
from vlmdata.errors import GateFailed
from vlmdata.filtering.look import looks_of
from vlmdata.forgetting.forget import forget
from vlmdata.forgetting.who import Asked
from vlmdata.layout import Stage, Step
from vlmdata.quality import embeddings


def png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def scene(sky: tuple[int, int, int], ground: tuple[int, int, int], side: int = 128) -> Image.Image:
    """One composition in any colours: pHash sees only how bright they are."""
    image = Image.new("RGB", (side, side), sky)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, side * 0.6, side, side), fill=ground)
    draw.ellipse((side * 0.2, side * 0.1, side * 0.45, side * 0.35), fill=ground)
    return image


BLUE = png(scene((120, 170, 255), (20, 60, 20)))
BLUE_SMALLER = png(scene((120, 170, 255), (20, 60, 20), 112))
SAND = png(scene((250, 230, 120), (120, 60, 0)))


def build(growing: Callable[..., Growing], confirm: float | None, files: dict[str, bytes]) -> Growing:
    return growing(
        files,
        filter={"min_side": 32},
        dedup={"confirm": confirm},
        quality={"model": "starter", "pretrained": None, "device": "cpu"},
    )


def cosine(set_: Growing, shards: list[Shard]) -> float:
    looks = {row["id"]: np.array(row["embedding"], float) for row in looks_of(set_.dataset, shards).to_pylist()}
    keys = {row["key"]: row["id"] for row in set_.rows(shards, Step.RAW, "samples")}
    one, other = looks[keys["a.png"]], looks[keys["b.png"]]
    return float(one @ other)


@pytest.fixture
def scenes(growing: Callable[..., Growing]) -> Growing:
    """Two pictures of one composition in other colours, and the first of them smaller."""
    return build(growing, 0.9, {"a.png": BLUE, "b.png": SAND, "c.png": BLUE_SMALLER})


def test_hashes_alone_take_other_colours_for_the_same_picture(growing: Callable[..., Growing]) -> None:
    set_ = build(growing, None, {"a.png": BLUE, "b.png": SAND})
    assert len(set_.near_duplicates(set_.filtered())) == 1


def test_what_looks_unlike_stays_and_what_looks_alike_goes(scenes: Growing) -> None:
    shards = scenes.filtered()
    assert cosine(scenes, shards) < 0.9
    assert scenes.near_duplicates(shards) == {"c.png": "a.png"}
    assert check_stage(scenes.dataset, shards, Stage.FILTERED, scenes.config) == []


def test_the_gate_asks_for_embeddings_of_all_that_is_close(scenes: Growing) -> None:
    shards = scenes.filtered()
    blind = [Shard(one.name, one.rows, {k: v for k, v in one.manifests.items() if k != Step.LOOKS}) for one in shards]
    with pytest.raises(GateFailed, match="no_near_duplicates"):
        check_stage(scenes.dataset, blind, Stage.FILTERED, scenes.config)


def test_only_pictures_that_are_close_are_embedded_and_none_twice(
    growing: Callable[..., Growing], pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    embed = embeddings._embed

    def counted(encoder: Any, given: Any, *more: Any) -> Any:
        given = list(given)
        seen.append(len(given))
        return embed(encoder, given, *more)

    monkeypatch.setattr(embeddings, "_embed", counted)
    set_ = build(growing, 0.9, {"a.png": BLUE, "b.png": SAND, "far.png": pictures.png(5)})
    set_.filtered()
    assert sum(seen) == 2
    set_.filtered()
    assert sum(seen) == 2, "a rerun embeds nothing"


def test_the_next_night_takes_over_what_was_seen(scenes: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes.publish()
    embedded: list[int] = []
    embed = embeddings._embed
    monkeypatch.setattr(
        embeddings, "_embed", lambda encoder, given, *more: embedded.append(len(given)) or embed(encoder, given, *more)
    )
    assert scenes.near_duplicates(scenes.filtered()) == {"c.png": "a.png"}
    assert embedded == [], "a night without news looks at nothing"
    scenes.add({"d.png": png(scene((250, 230, 120), (120, 60, 0), 120))})
    shards = scenes.filtered()
    assert scenes.near_duplicates(shards) == {"c.png": "a.png", "d.png": "b.png"}
    assert embedded == [1], "the newcomer alone"
    assert check_stage(scenes.dataset, shards, Stage.FILTERED, scenes.config) == []


def test_what_is_displaced_comes_back_when_its_like_leaves(scenes: Growing) -> None:
    scenes.publish()
    scenes.remove("a.png")
    assert scenes.near_duplicates(scenes.filtered()) == {}


def test_what_is_forgotten_leaves_no_embedding(scenes: Growing) -> None:
    scenes.publish()
    sand = next(row["id"] for row in scenes.rows(scenes.filtered(), Step.RAW, "samples") if row["key"] == "b.png")
    assert sand in looks_of(scenes.dataset, scenes.filtered())["id"].to_pylist()
    forget(scenes.dataset, Asked.of(samples=(sand,), urls=(), domains=(), sha256s=()))
    shards = scenes.filtered()
    assert sand not in looks_of(scenes.dataset, shards)["id"].to_pylist()
    assert scenes.near_duplicates(shards) == {"c.png": "a.png"}
