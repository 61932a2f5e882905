"""Trainings as a person starts them: the command, several processes, and a kill at any moment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.processes import ROOT, Process, kill_group, run, started, wait_until
from tests.integration.seaweed import BUCKET, S3
from tests.unit.training.conftest import VIT, model_folder, write_export
from vlmdata.errors import SourceError
from vlmdata.store import open_store
from vlmdata.training.config import TRAIN
from vlmdata.training.engine.checkpoints import checkpoints
from vlmdata.training.log import read_figures
from vlmdata.training.samples import open_samples

pytestmark = pytest.mark.integration
PATIENCE_S = 600


@pytest.fixture(scope="module")
def terms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small model and a small set with splits."""
    folder = tmp_path_factory.mktemp("training")
    return {
        "data": str(write_export(folder / "set", samples=64, splits=True)),
        "model": str(model_folder(folder / "m", VIT)),
        "epochs": 2,
        "base_lr": 1e-3,
        "batch_per_device": 8,
        "effective_batch": 16,
        "allow_small_batch": True,
        "workers": 1,
        "trackers": ["tensorboard"],
        "device": "cpu",
    }


def surroundings() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def config_file(folder: Path, terms: dict[str, Any], **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump({"out": "./out", **terms, **changes}))
    return path


def alone(config: Path) -> list[str]:
    return [sys.executable, "-m", "vlmdata.training", str(config)]


def together(config: Path, processes: int) -> list[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*launch, "-m", "vlmdata.training", str(config)]


def done(command: list[str], expected: int = 0) -> subprocess.CompletedProcess[str]:
    ended = run(command, surroundings(), PATIENCE_S)
    assert ended.returncode == expected, ended.stdout + ended.stderr
    return ended


def steps(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_figures(folder / "out") if line["kind"] == "step"]


def test_two_processes_have_the_losses_of_one(tmp_path: Path, terms: dict[str, Any]) -> None:
    one, two, chunked = (config_file(tmp_path / name, terms) for name in ("one", "two", "chunked"))
    done(alone(config_file(tmp_path / "one", terms, batch_per_device=16)))
    done(together(two, 2))
    done(together(config_file(tmp_path / "chunked", terms, batch_per_device=4), 2))
    of_one, of_two, of_chunks = (steps(path.parent) for path in (one, two, chunked))
    assert len(of_one) == 6
    for ours, theirs in ((of_two, of_one), (of_chunks, of_one)):
        for name in (
            "loss",
            "loss_image_to_text",
            "loss_text_to_image",
            "grad_norm_vision",
            "grad_norm_text",
            "alignment",
        ):
            assert [line[name] for line in ours] == pytest.approx([line[name] for line in theirs], rel=1e-4), name
    batches = [json.loads((path.parent / "out/run.json").read_text())["batch"] for path in (one, two, chunked)]
    assert [(one["devices"], one["chunks"], one["effective"]) for one in batches] == [
        (1, 1, 16),
        (2, 1, 16),
        (2, 2, 16),
    ]


def test_two_processes_of_stages_chunks_adapters_and_a_sigmoid_go_on_with_the_losses_of_one(
    tmp_path: Path, terms: dict[str, Any]
) -> None:
    """Killed within the first stage, when it has a checkpoint."""
    stages = [{"epochs": 2, "text": "lora"}, {"epochs": 1, "vision": "trained", "base_lr": 1e-3}]
    more = {"loss": "siglip", "epochs": None, "stages": stages, "checkpoint_every": 2}
    done(alone(config_file(tmp_path / "one", terms, **more, batch_per_device=16)))
    two = config_file(tmp_path / "two", terms, **more, batch_per_device=4)
    with started(together(two, 2), surroundings()) as process:
        far = partial(has_logged, two.parent / "out/metrics.jsonl", 4, process)
        wait_until(far, "4 lines are written", PATIENCE_S, pause_s=0.01)
        kill_group(process)
    done(together(two, 2))
    assert "goes on after step" in (two.parent / "out/log.txt").read_text()
    of_one, of_two = steps(tmp_path / "one"), steps(two.parent)
    assert [line["step"] for line in of_two] == list(range(1, 10)) and {line["stage"] for line in of_two} == {1, 2}
    for name in ("loss", "grad_norm_vision", "grad_norm_text", "logit_scale"):
        assert [line[name] for line in of_two] == pytest.approx([line[name] for line in of_one], rel=1e-4), name


def test_a_mistake_ends_all_processes_in_one_line_each(tmp_path: Path, terms: dict[str, Any]) -> None:
    ended = run(together(config_file(tmp_path, terms, data="./nowhere"), 2), surroundings(), PATIENCE_S)
    assert ended.returncode != 0
    said = [line for line in ended.stderr.splitlines() if line.startswith("vlmdata: ")]
    assert len(said) == 2
    assert 'Traceback (most recent call last):\n  File "' + str(ROOT / "vlmdata") not in ended.stderr


def test_a_training_killed_at_any_moment_goes_on_as_if_it_had_not_been(tmp_path: Path, terms: dict[str, Any]) -> None:
    more = {"epochs": 6, "checkpoint_every": 1}
    whole, killed = (config_file(tmp_path / name, terms, **more) for name in ("whole", "killed"))
    done(alone(whole))
    for at in (2, 9):
        with started(alone(killed), surroundings()) as process:
            far = partial(has_logged, killed.parent / "out/metrics.jsonl", at, process)
            wait_until(far, f"{at} lines are written", PATIENCE_S, pause_s=0.01)
            kill_group(process)
    done(alone(killed))
    assert [line["loss"] for line in steps(killed.parent)] == [line["loss"] for line in steps(whole.parent)]
    weights = [path.parent / "out/model/open_clip_model.safetensors" for path in (whole, killed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def has_logged(log: Path, lines: int, process: Process) -> bool:
    assert process.poll() is None, "it ended before it was killed"
    return log.is_file() and len(log.read_text().splitlines()) >= lines


def test_the_command_trains_and_tells(tmp_path: Path, terms: dict[str, Any]) -> None:
    config = config_file(tmp_path, terms)
    command = [sys.executable, "-m", "vlmdata.cli", "train", str(config)]
    ended = done(command)
    assert "Traceback" not in ended.stderr
    assert "Trained 6 steps, effective batch 16 (8 per device × 1 devices × 2 chunks)" in ended.stdout
    assert "image → text: " in ended.stdout
    assert "text → image: " in ended.stdout
    assert f"Model: {tmp_path / 'out/model'}" in ended.stdout
    assert list((tmp_path / "out/tensorboard").iterdir())
    refused = done([*command, "--set", "warmup=0.5"], expected=2)
    assert refused.stderr.strip().count("\n") == 0
    assert "warmup = 0.5: expected a share of the steps from 0.05 to 0.10" in refused.stderr
    small = done([*command, "--set", "allow_small_batch=false"], expected=2)
    assert "effective batch = 16: expected 256 or more" in small.stderr


def test_an_export_in_a_bucket_is_streamed(tmp_path: Path, terms: dict[str, Any], s3: S3) -> None:
    """By two processes with two readers each, or after half of it was read from a folder: the same losses."""
    store = open_store(f"s3://{BUCKET}/export")
    for path in Path(terms["data"]).rglob("*"):
        if path.is_file():
            store.put(path.relative_to(terms["data"]).as_posix(), path.read_bytes())
    done(alone(config_file(tmp_path / "here", terms)))
    expected = [line["loss"] for line in steps(tmp_path / "here")]

    done(together(config_file(tmp_path / "there", terms, data=store.url, batch_per_device=8, workers=2), 2))
    assert [line["loss"] for line in steps(tmp_path / "there")] == pytest.approx(expected, rel=1e-4)
    assert not [*(tmp_path / "there").rglob("*.tar"), *(tmp_path / "there").rglob("verified")]

    shutil.copytree(tmp_path / "here", tmp_path / "resumed")
    newest = checkpoints(tmp_path / "resumed/out")[-1]
    shutil.rmtree(newest)
    done(alone(config_file(tmp_path / "resumed", terms, data=store.url)))
    assert checkpoints(tmp_path / "resumed/out")[-1] == newest
    assert [line["loss"] for line in steps(tmp_path / "resumed")] == expected


def test_tars_in_a_bucket_are_read_as_those_of_a_folder(tmp_path: Path, s3: S3) -> None:
    """Also those that are no export; damage is told by the address."""
    plain = write_export(tmp_path / "plain", samples=32, manifest=False)
    store = open_store(f"s3://{BUCKET}/plain")
    for path in sorted(plain.rglob("*.tar")):
        store.put(path.relative_to(plain).as_posix(), path.read_bytes())
    terms = {"model": "starter", "out": str(tmp_path / "out"), "epochs": 1, "validation_share": 0.3}
    (tmp_path / "out").mkdir()
    here, there = (
        open_samples(TRAIN.parse({**terms, "data": data}), tmp_path / "out") for data in (str(plain), store.url)
    )
    assert here.digest == there.digest
    assert here.table.equals(there.table)
    spans = list(zip(*(here.table[name].to_pylist() for name in ("tar", "offset", "size")), strict=True))
    assert here.tars.read(spans) == there.tars.read(spans)

    store.replace("webdataset/00001.tar", (plain / "webdataset/00001.tar").read_bytes()[:-9000])
    with pytest.raises(SourceError, match=r"s3://.*/plain/webdataset/00001.tar is another file than the one that was"):
        replace(there.tars).read(spans)
    with pytest.raises(SourceError, match=r"00001.tar: not a whole tar"):
        open_samples(TRAIN.parse({**terms, "data": store.url}), tmp_path / "out")


def test_an_export_in_a_bucket_is_verified_as_it_comes(tmp_path: Path, terms: dict[str, Any], s3: S3) -> None:
    store = open_store(f"s3://{BUCKET}/damaged")
    for path in Path(terms["data"]).rglob("*"):
        if path.is_file():
            store.put(path.relative_to(terms["data"]).as_posix(), path.read_bytes())
    tar = "train/webdataset/00001.tar"
    data = bytearray(store.get(tar))
    for change, said in ((data[:7], "has 7 bytes, MANIFEST.json says"), (data, "is not the file that MANIFEST.json")):
        change[3] ^= 1
        store.replace(tar, bytes(change))
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(SourceError, match=f"s3://{BUCKET}/damaged/{tar} {said}") as caught:
            open_samples(TRAIN.parse({**terms, "data": store.url, "out": str(tmp_path / "out")}), tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out/verified").exists()
