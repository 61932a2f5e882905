"""What a training tells: its log, its figures, its record, its curves."""

from __future__ import annotations

import json
import subprocess
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training.conftest import (
    Configured,
    broken_off,
    drawn,
    tar_of,
)
from vlmdata.training import story as story_module
from vlmdata.training.log import read_figures
from vlmdata.training.schedule import stage_at, stages_of
from vlmdata.training.train import train

FIGURES = {
    *("loss", "loss_image_to_text", "loss_text_to_image", "imbalance", "logit_scale", "lr", "images_per_s"),
    *("grad_norm_vision", "grad_norm_text", "alignment", "uniformity_image", "uniformity_text"),
}


def test_a_training_leaves_what_is_needed_to_believe_it(configured: Configured) -> None:
    config = configured(effective_batch=16, epochs=3, precision="fp32")
    story = train(config)
    out = Path(config.out)
    lines = read_figures(out)
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, story["steps"] + 1))
    assert all(set(line) >= FIGURES for line in steps)
    measured = [line for line in lines if line["kind"] == "evaluation"]
    ways = {f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    assert [line["epoch"] for line in measured] == [1, 2, 3]
    assert all(ways <= set(line) for line in measured)

    told = json.loads((out / "run.json").read_text())
    assert told["batch"] == {"per_device": 8, "devices": 1, "chunks": 2, "effective": 16}
    assert told["data"]["dataset"] == "cards"
    manifest = (Path(config.data) / "MANIFEST.json").read_bytes()
    assert told["data"]["manifest_hash"] == sha256(manifest).hexdigest()[:16]
    assert len(told["config_hash"]) == 16
    assert told["libraries"]["torch"] == version("torch") and told["libraries"]["open_clip_torch"]
    assert told["hardware"]["device"] == "cpu" and told["hardware"]["processor"]
    assert told["seed"] == 0 and told["earlier"] == []
    pairs = told["data"]["train"]
    log = (out / "log.txt").read_text()
    for said in (
        f"batch: 8 per device x 1 devices x 2 chunks = 16; {pairs % 16} pairs of each pass over the data are left over",
        "precision: fp32 (as the config says); similarity matrix and loss in fp32",
        "stage 1",
        "Warning: stage 1 has 3 steps, too few for a warmup of 5% to 10% of them: it takes 1",
    ):
        assert said in log
    assert told["warnings"] == ["Warning: stage 1 has 3 steps, too few for a warmup of 5% to 10% of them: it takes 1"]
    assert "gradient checkpointing: off" in log
    assert "| 3 | " in (out / "README.md").read_text()
    assert "effective batch 16 (8 per device × 1 devices × 2 chunks)" in (out / "README.md").read_text()
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_rate_that_is_logged_is_the_plan_s_and_the_optimizer_s(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []
    real = torch.optim.AdamW.step

    def stepping(self: torch.optim.AdamW, *rest: Any) -> Any:
        used.append(self.param_groups[0]["lr"])
        return real(self, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", stepping)
    config = configured(epochs=None, stages=[{"epochs": 2, "base_lr": 1e-2}, {"epochs": 3}])
    train(config)
    lines = [line for line in read_figures(Path(config.out)) if line["kind"] == "step"]
    stages = stages_of(config, 28, 8, from_scratch=True)
    assert [line["lr"] for line in lines] == used == [stage_at(stages, n).rate(n) for n in range(stages[-1].end)]
    assert {line["stage"] for line in lines} == {1, 2} and len(lines) == 15


def test_an_imbalance_of_the_two_losses_is_warned_of_once_and_a_balance_is_not(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the run was broken off: before the warning, or after it and before a checkpoint."""
    story = train(configured(max_imbalance=1e-6, epochs=8))
    assert len(story["warnings"]) == 1
    assert "Warning: alignment drift by step 20: the losses of the two directions differ by" in story["warnings"][0]
    assert train(configured(max_imbalance=1.9, epochs=8, out=str(tmp_path / "balanced")))["warnings"] == []
    for at in (19, 20, 23):
        broken = configured(max_imbalance=1e-6, epochs=8, out=str(tmp_path / f"broken-{at}"))
        with monkeypatch.context() as patched:
            broken_off(patched, broken, at)
        assert train(broken)["warnings"] == story["warnings"], at


def test_pairs_that_say_left_or_right_are_told(configured: Configured, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rows = [
        (f"s{n:02}", drawn(n)[0], [{"text": f"a mark {'to the left' if n % 4 == 0 else 'in it'}"}]) for n in range(40)
    ]
    (tmp_path / "set/0.tar").write_bytes(tar_of(rows))
    for flip, told in ((True, "flip: off for 10 pairs, whose captions say left or right"), (False, None)):
        config = configured(
            data=str(tmp_path / "set"), out=str(tmp_path / f"out-{flip}"), epochs=1, flip=flip, **ALL_IN
        )
        assert train(config)["data"]["says_left_or_right"] == 10
        found = [line for line in (Path(config.out) / "log.txt").read_text().splitlines() if line.startswith("flip")]
        assert found == ([told] if told else [])


ALL_IN = {"alignment": {"model": "starter", "pretrained": None, "max_misaligned": 1.0}}


def test_the_commit_is_that_of_the_code_wherever_it_is_started(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or none, where the code is installed: in a repository of somebody else's, too."""
    code = tmp_path / "code"
    (code / "vlmdata/training").mkdir(parents=True)
    source = code / "vlmdata/training" / Path(story_module.__file__).name
    source.write_text("# code\n")
    git = ["git", "-C", str(code), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    asked = {"git_commit": None, "git_changes": None}
    assert story_module._commit(source.parent) == asked, "not of this repository"
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.chdir(tmp_path)
    assert story_module._commit(source.parent) == {"git_commit": head, "git_changes": False}
    source.write_text("# other code\n")
    assert story_module._commit(source.parent) == {"git_commit": head, "git_changes": True}
    (tmp_path / "elsewhere").mkdir()
    assert story_module._commit(tmp_path / "elsewhere") == asked


def test_tensorboard_has_every_figure_once_also_of_a_run_that_was_broken_off(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = configured(trackers=["tensorboard"], checkpoint_every=2)
    with monkeypatch.context() as patched:
        broken_off(patched, config, 5)
    train(config)
    shown = EventAccumulator(str(Path(config.out) / "tensorboard"))
    shown.Reload()
    lines = read_figures(Path(config.out))
    for kind, name in (
        ("step", "loss"),
        ("step", "lr"),
        ("step", "grad_norm_text"),
        ("evaluation", "text_to_image_r5"),
    ):
        theirs = [(event.step, event.value) for event in shown.Scalars(f"{kind}/{name}")]
        assert theirs == [(line["step"], pytest.approx(line[name])) for line in lines if line["kind"] == kind], name


def test_the_curves_draw_what_was_logged(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn_figures: list[Figure] = []
    real = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn_figures.append(self), real(self, *a, **k)))
    config = configured(epochs=3)
    train(config)
    lines = read_figures(Path(config.out))
    [figure] = drawn_figures
    curves = {curve.get_label(): curve for axis in figure.axes for curve in axis.lines}
    for kind, names in (
        ("step", ["loss_image_to_text", "loss_text_to_image", "lr", "logit_scale", "grad_norm_vision", "alignment"]),
        ("evaluation", ["image_to_text_r10", "text_to_image_r1"]),
    ):
        for name in names:
            curve = curves[name.replace("_", " ")]
            mine = [line for line in lines if line["kind"] == kind]
            assert list(curve.get_xdata()) == [line["step"] for line in mine]
            assert list(curve.get_ydata()) == [line[name] for line in mine], name
    assert [axis.get_title() for axis in figure.axes][:2] == ["loss", "learning rate"]
