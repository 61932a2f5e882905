"""Splits and an evaluation set: a list by the command, a build, and the readers that are told of the splits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, run, vlmdata
from tests.integration.sample import build_here, config_of, write_config
from vlmdata.checkpoint import Dataset
from vlmdata.explain import explain
from vlmdata.export.verify import verify
from vlmdata.layout import Stage, Step
from vlmdata.runs import existing_run

pytestmark = pytest.mark.integration

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def on_white(path: Path) -> Image.Image:
    """A picture as others would pass it on: without transparency."""
    with Image.open(path) as image:
        over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")


def evaluation_set(sample: Path, folder: Path) -> list[str]:
    """A folder of three of the sample's pictures, each cut at its edges; their keys in the sample."""
    folder.mkdir()
    keys = [json.loads(line)["file"] for line in (sample / "captions.jsonl").read_text().splitlines()][:3]
    for number, key in enumerate(keys):
        whole = on_white(sample / "pictures" / key)
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
    lists = {"lists": [str(tmp_path / "toy.parquet")], "max_distance": 0, "cosine": 0.9}
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
    assert 0.9 <= ended["facts"]["value"] <= 1.001

    assert verify(told["export"]).holds
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path / "croissant"))
    loaded = datasets.load_dataset(told["export"], cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == set(SHARES)
    ids = [row for split in loaded.values() for row in split["id"]]
    assert len(ids) == len(set(ids)) == final["kept"]
    described = mlcroissant.Dataset(jsonld=f"{told['export']}/croissant.json")
    assert sum(1 for _ in described.records("parquet")) == final["kept"]


def with_likenesses(sample: Path, folder: Path, count: int = 12) -> Path:
    """The sample, and of some pictures a mirrored one, which a model takes for the same, and a pale one: hashes do."""
    shutil.copytree(sample, folder)
    file = folder / "captions.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows[:count]):
        whole = on_white(folder / "pictures" / row["file"])
        likenesses = {"mirrored": ImageOps.mirror(whole), "pale": ImageEnhance.Contrast(whole).enhance(0.35)}
        for name, likeness in likenesses.items():
            likeness.save(folder / "pictures" / f"{name}-{number}.png")
            rows.append({"file": f"{name}-{number}.png", "captions": [{"text": f"{name}, no. {number}", "lang": "en"}]})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def hashes_and_vectors(dataset: Dataset) -> tuple[dict[str, int], dict[str, npt.NDArray[np.float64]]]:
    """Of each picture, as the checkpoints have them."""
    report = existing_run(dataset).stage(Stage.FILTERED)
    assert report is not None
    facts = pa.concat_tables([dataset.read(shard, Step.FACTS, "facts", ["id", "phash"]) for shard in report.shards])
    hashes = {row["id"]: row["phash"] for row in facts.to_pylist() if row["phash"] is not None}
    tables = sorted(Path(dataset.store.locate(f"{dataset.name}/{Step.EMBEDDINGS}/data")).rglob("*.parquet"))
    rows = pa.concat_tables([pq.read_table(path, columns=["id", "embedding"]) for path in tables]).to_pylist()
    return hashes, {row["id"]: np.array(row["embedding"], np.float64) for row in rows}


def split_of_each(export: Path) -> dict[str, str]:
    """By id, as the files have it."""
    return {
        id_: path.relative_to(export).parts[0]
        for path in sorted(export.glob("*/parquet/*.parquet"))
        for id_ in pq.read_table(path, columns=["id"])["id"].to_pylist()
    }


@pytest.fixture(scope="module")
def likenesses(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_likenesses(sample, tmp_path_factory.mktemp("likenesses") / "sample")


@pytest.mark.parametrize(
    ("by", "looks"), [({}, True), ({"cosine": None}, False)], ids=["by hashes and looks", "by hashes alone"]
)
def test_no_two_splits_share_a_picture_by_its_hash_nor_by_its_looks_where_that_is_asked_for(
    likenesses: Path, tmp_path: Path, server: PrefectServer, by: dict[str, Any], looks: bool
) -> None:
    """Every pair anew, from what the run left on the disk."""
    export = {"samples_per_shard": 8, "formats": ["parquet"], "splits": SHARES, "split_by": by}
    config = config_of(likenesses, str(tmp_path / "store"), export=export, dedup={"max_distance": 0})
    told = build_here(config, server.api)
    splits = split_of_each(Path(told["export"]))
    assert set(splits.values()) == set(SHARES) and len(splits) == told["stages"]["04_final"]["kept"]

    hashes, vectors = hashes_and_vectors(Dataset(config["store"], "sample"))
    ids = sorted(splits)
    phashes = np.array([hashes[id_] for id_ in ids], np.uint64)
    embedded = np.stack([vectors[id_] for id_ in ids])
    others = np.triu(np.ones((len(ids), len(ids)), bool), 1)
    near = others & (np.bitwise_count(phashes[:, None] ^ phashes) <= 14)
    alike = others & (embedded @ embedded.T >= 0.95)
    assert (near & ~alike).sum() >= 5 and (alike & ~near).sum() >= 5, "each of the two has pairs to keep together"
    named = np.array([splits[id_] for id_ in ids])
    apart = named[:, None] != named
    assert not (near & apart).any()
    assert bool((alike & apart).any()) != looks
