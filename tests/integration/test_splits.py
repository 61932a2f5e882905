"""Splits and evaluation sets as people run them: one list, two builds, and the readers that are told of the splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, run, vlmdata
from tests.integration.sample import config_of, write_config

pytestmark = pytest.mark.integration

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def done(*arguments: str) -> str:
    """What a command prints that ends well."""
    ran = run(vlmdata(*arguments), environment())
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def evaluation_set(sample: Path, folder: Path) -> list[str]:
    """A folder of three of the sample's pictures, each cut at its edges; their keys in the sample."""
    folder.mkdir()
    keys = [json.loads(line)["file"] for line in (sample / "captions.jsonl").read_text().splitlines()][:3]
    for number, key in enumerate(keys):
        with Image.open(sample / "pictures" / key) as image:
            whole = image.convert("RGB")
        edge = [side // 40 for side in whole.size]
        whole.crop((*edge, whole.width - edge[0], whole.height - edge[1])).save(folder / f"{number}.png")
    return keys


def stage(config: dict[str, Any]) -> dict[str, Any]:
    told = json.loads(done("status", "--store", config["store"], "--dataset", "sample", "--json"))
    final: dict[str, Any] = {**told["stages"]["04_final"], "export": told["export"], "version": told["version"]}
    return final


def test_from_a_list_to_splits_that_readers_find(
    sample: Path, tmp_path: Path, server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import mlcroissant

    keys = evaluation_set(sample, tmp_path / "evaluation")
    config = config_of(sample, str(tmp_path / "store"))
    config["export"] |= {"splits": SHARES, "split_by": {"cosine": 0.98}}
    file = str(write_config(tmp_path / "config.yaml", config))
    done("build", file)
    before = stage(config)
    listed = ("--against", str(tmp_path / "evaluation"), "--name", "toy-val", "--out", str(tmp_path / "toy.parquet"))
    assert "3 pictures of toy-val, their hashes and embeddings" in done("decontaminate", *listed, "--config", file)

    # No hash is equal after the cut, so it is looks that tell.
    config["export"]["decontaminate"] = {"lists": [str(tmp_path / "toy.parquet")], "max_distance": 0, "cosine": 0.6}
    file = str(write_config(tmp_path / "config.yaml", config))
    done("build", file)
    after = stage(config)
    assert after["reasons"] == {"contaminated": 3}
    assert (after["in"], after["kept"]) == (before["kept"], before["kept"] - 3)
    story = json.loads(done("explain", keys[0], "--store", config["store"], "--dataset", "sample", "--json"))
    assert story["stages"][-1]["outcome"] == "rejected"
    assert story["stages"][-1]["facts"]["detail"].startswith("toy-val: ")
    assert 0.6 <= story["stages"][-1]["facts"]["value"] <= 1.001

    assert "0 wrong" in done("verify", after["export"])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path / "croissant"))
    loaded = datasets.load_dataset(after["export"], cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == set(SHARES)
    ids = [row for split in loaded.values() for row in split["id"]]
    assert len(ids) == len(set(ids)) == after["kept"]
    described = mlcroissant.Dataset(jsonld=f"{after['export']}/croissant.json")
    assert sum(1 for _ in described.records("parquet")) == after["kept"]

    # The list has another content under the same name: that is another set.
    (tmp_path / "evaluation" / "0.png").unlink()
    done("decontaminate", *listed, "--config", file)
    done("build", file)
    again = stage(config)
    assert (again["reasons"], again["version"]) == ({"contaminated": 2}, after["version"] + 1)
