"""Sets of `examples/mismatched.py`: as many wrong captions as their names say, and none where models are measured."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.conftest import Configured, drawn, tar_of
from vlmdata.training.batch import batch_of
from vlmdata.training.config import TRAIN as TRAINING
from vlmdata.training.samples import TRAIN, VALIDATION, open_samples

ROOT = Path(__file__).parents[3]
PAIRS = 200


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield importlib.import_module("mismatched")
    for name in [name for name in sys.modules if name == "mismatched" or name.split(".")[0] == "starter"]:
        del sys.modules[name]


@pytest.fixture
def sets(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made by the command; two more pictures say what others have said."""
    (tmp_path / "data").mkdir()
    rows = [(f"s{n:03}", drawn(n)[0], [{"text": f"{what} {n}"} for what in ("title", "words")]) for n in range(PAIRS)]
    rows += [(f"t{n}", drawn(300 + n)[0], [{"text": f"title {n}"}]) for n in range(2)]
    (tmp_path / "data/0.tar").write_bytes(tar_of(rows))
    monkeypatch.setattr(
        "sys.argv", ["mismatched.py", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "sets")]
    )
    recipe.main()
    return tmp_path / "sets"


def captions_of(configured: Callable[..., Any], folder: Path, out: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """By split and key, as a training reads them."""
    out.mkdir()
    samples = open_samples(configured(data=str(folder), validation_share=0.2), out)
    told: dict[str, dict[str, tuple[str, ...]]] = {}
    for split in (TRAIN, VALIDATION):
        rows = samples.table.take(samples.rows(split)).to_pylist()
        told[split] = {row["id"]: tuple(row["captions"]) for row in rows}
    return told


def test_captions_are_handed_on_as_often_as_is_said_and_only_where_models_learn(
    configured: Configured, sets: Path, tmp_path: Path
) -> None:
    found = {share: captions_of(configured, sets / str(share), tmp_path / f"out-{share}") for share in (0, 10, 30, 50)}
    right = found[0]
    assert len(right[TRAIN]) + len(right[VALIDATION]) == PAIRS, "of those that say the same, one"
    wrong: dict[int, set[str]] = {}
    for share, told in found.items():
        assert told[VALIDATION] == right[VALIDATION]
        assert sorted(told[TRAIN].values()) == sorted(right[TRAIN].values()), "the same captions, at other pictures"
        wrong[share] = {key for key, captions in told[TRAIN].items() if captions != right[TRAIN][key]}
        assert len(wrong[share]) == round(share / 100 * len(right[TRAIN]))
    assert wrong[0] < wrong[10] < wrong[30] < wrong[50]


def test_the_config_beside_them_is_one(sets: Path) -> None:
    config = TRAINING.read(sets / "train.yaml")
    assert config.data == str(sets / "0") and batch_of(config, 1).effective == 256
