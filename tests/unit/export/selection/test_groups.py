"""Groups through the whole selection: what splits spread evenly, and what weights and caps are said of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.export.selection.test_select import SHARES, export
from vlmdata.config_reading import parse_config
from vlmdata.export.selection.select import select
from vlmdata.layout import Step

BOUNDS = {"accept_above": 0.28, "reject_below": 0.2}
FRENCH = {"languages": {"fr": {"model": "starter-multilingual", **BOUNDS}}}


def selected(built: Any, **asked: Any) -> dict[str, dict[str, Any]]:
    """What is decided of each, by key."""
    by = {"max_distance": None, "cosine": None}
    config = parse_config({**built.config.model_dump(), **export(split_by=by, **asked)})
    shard = select(built.dataset, built.shards, config)[0]
    rows = {row["id"]: row for row in built.dataset.read(shard, Step.SELECTED, "selected").to_pylist()}
    return {row["key"]: rows[row["id"]] for row in built.rows(Step.CHECKED, "samples")}


@pytest.fixture
def judged(tiny: Callable[..., Any]) -> Callable[..., Any]:
    """Pictures as 03 lets them through: each has a caption that scores so, and a worse one of the other language."""

    def make(files: dict[str, bytes], languages: dict[str, str], scores: dict[str, float]) -> Any:
        said = {
            key: [{"text": f"worse {key}", "lang": "en" if of == "fr" else "fr"}, {"text": key, "lang": of}]
            for key, of in languages.items()
        }
        own = {"shard_size": 8, "quality": {"device": "cpu", **BOUNDS, **FRENCH}, "dedup": {"max_distance": 0}}
        start = tiny(files, said, **own).ingested().filtered().captioned()
        return start.judged({**dict.fromkeys((f"worse {key}" for key in files), 0.29), **scores})

    return make


def test_every_source_and_language_gives_each_split_its_share(judged: Callable[..., Any], pictures: Any) -> None:
    strata = {("x", "en"): 16, ("x", "fr"): 8, ("y", "en"): 8, ("y", "fr"): 4}
    of = {f"{at}/{to} {n}.png": (at, to) for (at, to), count in strata.items() for n in range(count)}
    files = {key: pictures.png(seed) for seed, key in enumerate(of)}
    built = judged(files, {key: language for key, (_, language) in of.items()}, {})
    found = Counter((of[key], row["split"]) for key, row in selected(built).items())
    for stratum, count in strata.items():
        assert {name: found[stratum, name] for name in SHARES} == {name: SHARES[name] * count for name in SHARES}


@pytest.fixture
def mixed(judged: Callable[..., Any], pictures: Any) -> Any:
    """Twenty, each better than the one before it; see `MEMBERS`."""
    keys = [f"{'x' if n < 10 else 'y'}/{n}.png" for n in range(20)]
    files = {key: pictures.png(n, *((400, 260) if n in MEMBERS["size"][1] else ())) for n, key in enumerate(keys)}
    languages = {key: "fr" if n in MEMBERS["language"][1] else "en" for n, key in enumerate(keys)}
    return judged(files, languages, {key: 0.5 + n / 100 for n, key in enumerate(keys)})


MEMBERS = {
    "source": ("y", range(10, 20)),
    "language": ("fr", range(0, 20, 2)),
    "size": ("256-383", range(0, 20, 3)),
    "score_decile": ("10", range(18, 20)),
}
"""A group of each dimension, and who is in it."""


def left_out(built: Any, select_: dict[str, Any]) -> dict[int, tuple[str, str, float]]:
    """Code, words and bound of each that is left out, by its number."""
    rows = selected(built, splits=None, select=select_)
    number = {key: int(key.partition("/")[2].removesuffix(".png")) for key in rows}
    return {number[key]: (row["code"], row["detail"], row["bound"]) for key, row in rows.items() if row["code"]}


@pytest.mark.parametrize("dimension", MEMBERS)
def test_a_cap_and_a_weight_are_of_a_group_in_every_dimension(mixed: Any, dimension: str) -> None:
    group, members = MEMBERS[dimension]
    told = f"{dimension} {group}"
    worst = members[:-1]
    assert left_out(mixed, {"caps": {dimension: {group: 1}}}) == dict.fromkeys(worst, ("cap", told, 1.0))
    assert left_out(mixed, {"weights": {dimension: {group: 0.0}}}) == dict.fromkeys(members, ("weight", told, 0.0))
