"""Splits and an evaluation set: a list by the command, a build, and the readers that are told of the splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, run, vlmdata
from tests.integration.sample import build_here, config_of, write_config
from vlmdata.checkpoint import Dataset
from vlmdata.explain import explain
from vlmdata.export.verify import verify

pytestmark = pytest.mark.integration

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


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


def test_from_a_list_to_splits_that_readers_find(
    sample: Path, tmp_path: Path, server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import mlcroissant

    keys = evaluation_set(sample, tmp_path / "evaluation")
    # No hash is equal after the cut, so it is looks that tell.
    lists = {"lists": [str(tmp_path / "toy.parquet")], "max_distance": 0, "cosine": 0.6}
    export = {"samples_per_shard": 8, "splits": SHARES, "split_by": {"cosine": 0.98}}
    config = config_of(sample, str(tmp_path / "store"), export=export)
    listed = ("--against", str(tmp_path / "evaluation"), "--name", "toy-val", "--out", str(tmp_path / "toy.parquet"))
    file = str(write_config(tmp_path / "config.yaml", config))
    made = run(vlmdata("decontaminate", *listed, "--config", file), environment())
    assert made.returncode == 0, made.stderr
    assert "3 pictures of toy-val, their hashes and embeddings" in made.stdout

    told = build_here({**config, "export": {**export, "decontaminate": lists}}, server.api)
    final = told["stages"]["04_final"]
    assert final["reasons"] == {"contaminated": 3}
    assert (final["in"], final["kept"]) == (told["stages"]["03_quality_checked"]["kept"], final["in"] - 3)
    ended = explain(Dataset(config["store"], "sample"), keys[0])["stages"][-1]
    assert ended["outcome"] == "rejected" and ended["facts"]["detail"].startswith("toy-val: ")
    assert 0.6 <= ended["facts"]["value"] <= 1.001

    assert verify(told["export"]).holds
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path / "croissant"))
    loaded = datasets.load_dataset(told["export"], cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == set(SHARES)
    ids = [row for split in loaded.values() for row in split["id"]]
    assert len(ids) == len(set(ids)) == final["kept"]
    described = mlcroissant.Dataset(jsonld=f"{told['export']}/croissant.json")
    assert sum(1 for _ in described.records("parquet")) == final["kept"]
