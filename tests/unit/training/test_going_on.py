"""How a training ends before its end, how it goes on, and what it does not go on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training.conftest import (
    TEXT,
    VIT,
    Configured,
    Killed,
    broken_off,
    losses,
    write_export,
)
from vlmdata.errors import ConfigError, Diverged
from vlmdata.training.engine import checkpoints, devices
from vlmdata.training.engine import loop as looping
from vlmdata.training.engine import step as stepping
from vlmdata.training.engine.step import Stepper
from vlmdata.training.train import train

STAGES = [{"epochs": 2}, {"epochs": 1, "vision": "trained", "base_lr": 1e-3}]


@pytest.mark.parametrize("at", [1, 4, 6, 8])
def test_a_resumed_run_has_the_losses_of_an_unbroken_one(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before any checkpoint, after one within an epoch, at a stage's end, and within the second stage."""
    terms: dict[str, Any] = {"epochs": None, "stages": STAGES, "batch_per_device": 4, "effective_batch": 8}
    terms["checkpoint_every"] = 2
    train(configured(out=str(tmp_path / "whole"), **terms))
    broken = configured(out=str(tmp_path / "broken"), **terms)
    with monkeypatch.context() as patched:
        broken_off(patched, broken, at)
    story = train(broken)
    whole = losses(str(tmp_path / "whole"))
    assert len(whole) == 9
    assert losses(broken.out) == whole
    assert story["evaluations"] == json.loads((tmp_path / "whole/run.json").read_text())["evaluations"]
    weights = [tmp_path / name / "model/open_clip_model.safetensors" for name in ("whole", "broken")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_run_that_is_done_is_not_done_again(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(configured())

    def never(*_: Any) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(Stepper, "step", never)
    assert train(configured())["evaluations"] == first["evaluations"]


def test_a_trainer_s_state_is_plain_tensors_and_numbers(configured: Configured) -> None:
    config = configured()
    train(config)
    newest = checkpoints.checkpoints(Path(config.out))[-1]
    state = torch.load(newest / "trainer.pt", weights_only=True)
    assert state["step"] == int(newest.name.removeprefix("step-"))
    assert {path.name for path in newest.iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "trainer.pt",
    }


def test_no_more_checkpoints_stay_than_asked_for(configured: Configured) -> None:
    config = configured(epochs=4, keep_checkpoints=2)
    story = train(config)
    steps = [int(path.name.removeprefix("step-")) for path in checkpoints.checkpoints(Path(config.out))]
    assert steps == [story["steps"] * 3 // 4, story["steps"]]


def test_a_checkpoint_that_was_cut_short_is_none(configured: Configured) -> None:
    config = configured()
    out = Path(config.out)
    train(config)
    half = out / "checkpoints/.part-step-000000999"
    half.mkdir()
    (half / "trainer.pt").write_bytes(b"half")
    assert train(config)["finished"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [cut, Path.unlink])
@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "trainer.pt"])
def test_a_damaged_checkpoint_is_one_line_and_without_it_the_run_goes_on(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, name: str, damage: Any
) -> None:
    config = configured(checkpoint_every=2)
    with monkeypatch.context() as patched:
        broken_off(patched, config, 5)
    older, newest = checkpoints.checkpoints(Path(config.out))
    damage(newest / name)
    with pytest.raises(ConfigError, match=rf"out: {newest / name} cannot be read .* remove {newest} to go on") as told:
        train(config)
    assert "\n" not in str(told.value)
    shutil.rmtree(newest)
    assert train(config)["finished"] and older.name == "step-000000003"


def test_a_state_of_another_kind_is_one_line(configured: Configured) -> None:
    config = configured()
    train(config)
    newest = checkpoints.checkpoints(Path(config.out))[-1]
    whole = torch.load(newest / "trainer.pt", weights_only=True)
    torch.save({"step": 3}, newest / "trainer.pt")
    with pytest.raises(ConfigError, match=r"cannot be read .it has no optimizer.; remove .* to go on from before"):
        train(config)
    other = {**whole, "step": 4, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(other, newest / "trainer.pt")
    with pytest.raises(ConfigError, match=r"trainer\.pt cannot be read \(.*; remove .* to go on from before"):
        train(config)


def test_adapters_of_another_architecture_are_refused(configured: Configured, vit: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    shutil.copytree(vit, model)
    config = configured(model=str(model), epochs=None, stages=[{"epochs": 1, "text": "lora"}])
    train(config)
    said = json.loads((model / "open_clip_config.json").read_text())
    said["model_cfg"] |= {"vision_cfg": {**VIT, "layers": 3}, "text_cfg": {**TEXT, "layers": 2}}
    (model / "open_clip_config.json").write_text(json.dumps(said))
    with pytest.raises(ConfigError, match=r"holds weights of another architecture .*; give another out") as told:
        train(config)
    assert "\n" not in str(told.value)


def test_a_loss_that_is_no_number_stops_with_step_and_samples_and_the_last_checkpoint_stays(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(checkpoint_every=2, epochs=3)
    real = looping.Training._one
    seen: list[list[str]] = []

    def poisoned(self: looping.Training, stepper: Stepper, chunks: list[Any], rate: float) -> dict[str, float]:
        if self.step == 3:
            seen.append(chunks[0].ids)
            chunks[0].images[0, 0, 0, 0] = float("nan")
        return real(self, stepper, chunks, rate)

    monkeypatch.setattr(looping.Training, "_one", poisoned)
    with pytest.raises(Diverged) as caught:
        train(config)
    said = str(caught.value)
    assert said.startswith(f"step 4: the loss is nan; the batch's samples: {', '.join(seen[0])} (all in log.txt)")
    assert "\n" not in said
    assert caught.value.samples == seen[0]
    assert caught.value.exit_code == 1
    assert " ".join(seen[0]) in (Path(config.out) / "log.txt").read_text()
    newest = checkpoints.checkpoints(Path(config.out))[-1]
    assert checkpoints.load_state(newest)["step"] <= 3
    from safetensors.torch import load_file

    assert all(bool(t.isfinite().all()) for t in load_file(newest / "open_clip_model.safetensors").values())


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_a_gradient_that_is_no_number_stops_before_it_is_learned(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """On a step after which there would have been a checkpoint."""
    config = configured(checkpoint_every=2, epochs=3, keep_checkpoints=1, loss=loss)
    real = stepping.backward
    taken: list[int] = []

    def poisoned(net: Any, pair: Any, chunks: Any, loss: Any) -> Any:
        found = real(net, pair, chunks, loss)
        taken.append(1)
        if len(taken) == 4:
            pair.model.text_projection.grad[0, 0] = float("inf")
        return found

    monkeypatch.setattr(stepping, "backward", poisoned)
    with pytest.raises(Diverged, match=r"^step 4: the gradient's norm is inf; the batch's samples: [0-9a-f]{32}, "):
        train(config)
    [newest] = checkpoints.checkpoints(Path(config.out))
    from safetensors.torch import load_file

    assert newest.name == "step-000000003"
    assert all(bool(t.isfinite().all()) for t in load_file(newest / "open_clip_model.safetensors").values())
    monkeypatch.undo()
    assert train(config)["finished"]


def test_a_folder_of_another_training_is_refused(configured: Configured, resnet: Path, tmp_path: Path) -> None:
    train(configured())
    with pytest.raises(ConfigError, match=r"holds a training of other settings \(base_lr was 0.001 and is 0.002\)"):
        train(configured(base_lr=2e-3))
    with pytest.raises(
        ConfigError, match=r"its checkpoints are of another architecture: model was .*vit'.* is .*resnet'"
    ):
        train(configured(model=str(resnet)))
    other = write_export(tmp_path / "other", samples=32)
    with pytest.raises(ConfigError, match=r"other settings \(its data is another\); give another out, or remove it"):
        train(configured(data=str(other)))


def test_parts_of_a_training_that_ran_elsewhere_are_on_record(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(checkpoint_every=2)
    with monkeypatch.context() as patched:
        patched.setattr(devices, "_processor", lambda: "another one")
        broken_off(patched, config, 3)
    story = train(config)
    assert [one["hardware"]["processor"] for one in story["earlier"]] == ["another one"]
    assert story["hardware"]["processor"] != "another one"
    with monkeypatch.context() as patched:
        patched.setattr(devices, "_processor", lambda: "a third one")
        patched.setattr(looping, "finished_model", dies)
        with pytest.raises(Killed):
            train(config)
        assert json.loads((Path(config.out) / "run.json").read_text()) == story, "what is done stays done"
    with monkeypatch.context() as patched:
        patched.setattr(devices, "_processor", lambda: "a third one")
        again = train(config)
    assert (again["hardware"], again["earlier"]) == (story["hardware"], story["earlier"]), "it did nothing there"


def dies(*_: Any) -> None:
    raise Killed


def test_what_began_in_one_precision_does_not_go_on_in_another(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(checkpoint_every=2)
    with monkeypatch.context() as patched:
        patched.setattr(devices, "_fast_on_cpu", lambda: (True, "this processor has AMX"))
        broken_off(patched, config, 3)
    assert json.loads((Path(config.out) / "run.json").read_text())["precision"] == "bf16"
    monkeypatch.setattr(devices, "_fast_on_cpu", lambda: (False, "this processor has no AMX"))
    with pytest.raises(ConfigError, match=r"began in bf16, and would go on in fp32 .this processor has no AMX.;"):
        train(config)
