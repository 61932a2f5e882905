"""Exit codes 3 and 4, of the command itself."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, run, vlmdata

pytestmark = pytest.mark.integration


def write_set(folder: Path, pictures: int, shard_size: int, policy: str) -> Path:
    """A config over a few noise pictures of 240 px; all have a caption unless the policy decides about that."""
    (folder / "pictures").mkdir()
    rows = []
    for number in range(pictures):
        noise = Image.frombytes("RGB", (8, 6), random.Random(number).randbytes(8 * 6 * 3)).resize((320, 240))
        noise.save(folder / "pictures" / f"{number}.png")
        rows.append({"file": f"{number}.png", **({} if policy == "none" else {"caption": f"number {number}"})})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {
        "dataset": "few",
        "store": "./store",
        "source": {"kind": "folder", "path": "./pictures", "captions": "./captions.jsonl"},
        "shard_size": shard_size,
        "caption": {"policy": policy},
        "quality": {"model": "starter", "accept_above": -1.0, "reject_below": -1.0},
        "report": False,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def build(config: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run(vlmdata("build", str(config), *more), environment())


def test_a_gate_that_says_no_is_3(server: PrefectServer, tmp_path: Path) -> None:
    done = build(write_set(tmp_path, 2, 10, "none"), "--to", "02_captioned")
    assert done.returncode == 3, done.stderr
    assert "no_caption" in done.stderr and "Traceback" not in done.stderr


def test_a_set_of_which_nothing_is_through_yet_is_4(server: PrefectServer, tmp_path: Path) -> None:
    """A gate would say no to an empty stage; but more money mends it, and nobody has to clean anything."""
    config = write_set(tmp_path, 2, 10, "none")
    asks = ("caption.policy=missing", "caption.base_url=http://127.0.0.1:9/v1", "caption.model=any")
    done = build(config, *(part for each in (*asks, "caption.max_requests=0") for part in ("--set", each)))
    assert done.returncode == 4, done.stderr
    assert "no sample is through yet (caption_budget 2)" in done.stderr and "Traceback" not in done.stderr


def test_samples_that_a_rerun_may_mend_are_4_and_the_rerun_mends_them(server: PrefectServer, tmp_path: Path) -> None:
    config = write_set(tmp_path, 3, 2, "missing")
    # 96 million pixels take far longer to decode than 80 ms.
    Image.new("RGB", (12_000, 8_000), "teal").save(tmp_path / "pictures" / "huge.png")
    captions = tmp_path / "captions.jsonl"
    captions.write_text(captions.read_text() + '{"file": "huge.png", "caption": "teal"}\n', encoding="utf-8")

    hasty = build(config, "--to", "01_filtered", "--set", "filter.decode_timeout_s=0.08")
    assert hasty.returncode == 4, hasty.stderr
    assert "decode_timeout" in hasty.stdout and "Traceback" not in hasty.stderr
    patient = build(config, "--to", "01_filtered")
    assert patient.returncode == 0, patient.stderr
    assert "decode_timeout" not in patient.stdout
