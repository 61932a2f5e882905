"""Whole trainings of small models: what they leave, how they go on, how they end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.training.conftest import Configured, drawn, tar_of, write_export
from vlmdata.errors import ConfigError, Diverged, SourceError
from vlmdata.measure.encoder import load_encoder
from vlmdata.training.engine import checkpoints
from vlmdata.training.engine import loop as looping
from vlmdata.training.engine.step import Stepper
from vlmdata.training.log import read_figures
from vlmdata.training.train import train

FIGURES = {
    *("loss", "loss_image_to_text", "loss_text_to_image", "imbalance", "logit_scale", "lr", "images_per_s"),
    *("grad_norm_vision", "grad_norm_text", "alignment", "uniformity_image", "uniformity_text"),
}


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def losses(out: str) -> list[float]:
    return [line["loss"] for line in read_figures(Path(out)) if line["kind"] == "step"]


def test_a_training_leaves_what_is_needed_to_believe_it(configured: Configured) -> None:
    config = configured(effective_batch=16, epochs=3)
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
    assert len(told["data"]["manifest_hash"]) == len(told["config_hash"]) == 16
    assert {"torch", "open_clip_torch"} <= set(told["libraries"])
    assert told["hardware"]["device"] == "cpu"
    assert told["seed"] == 0
    assert len(told["git_commit"]) == 40
    log = (out / "log.txt").read_text()
    for said in (
        "batch: 8 per device x 1 devices x 2 chunks = 16",
        "precision: fp32, for this processor has",
        "stage 1",
    ):
        assert said in log
    assert "gradient checkpointing: off" in log
    assert "| 3 | " in (out / "README.md").read_text()
    assert "effective batch 16 (8 per device × 1 devices × 2 chunks)" in (out / "README.md").read_text()
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_model_is_one_that_quality_can_name(configured: Configured) -> None:
    story = train(configured(epochs=1))
    encoder = load_encoder(story["model"], None, "cpu")
    red, blue = (np.asarray(encoder.texts([f"a {name} card"])) for name in ("red", "blue"))
    assert red.shape == (1, 16)
    assert not np.allclose(red, blue)


def test_a_model_learns_what_its_captions_say(configured: Configured, tmp_path: Path) -> None:
    data = write_export(tmp_path / "set", samples=160)
    story = train(configured(data=str(data), epochs=6, batch_per_device=16, base_lr=5e-3, validation_share=0.2))
    found = losses(story["config"]["out"])
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:5])


def test_nothing_is_hidden_from_a_projection_that_does_not_learn(configured: Configured) -> None:
    frozen = {"epochs": 1, "vision": "frozen", "text": "trained"}
    said = r"projection_dropout = 0\.3: .* frozen in every stage; leave it 0, or"
    for stages in ({"epochs": None, "stages": [frozen]}, {"epochs": 1}):
        with pytest.raises(ConfigError, match=said):
            train(configured(model="starter", projection_dropout=0.3, data="/nowhere", **stages))


def test_the_same_config_gives_the_same_losses_and_weights(configured: Configured, tmp_path: Path) -> None:
    stories = [train(configured(out=str(tmp_path / name), workers=workers)) for name, workers in (("a", 0), ("b", 2))]
    assert losses(str(tmp_path / "a")) == losses(str(tmp_path / "b"))
    files = [Path(story["model"]) / "open_clip_model.safetensors" for story in stories]
    assert files[0].read_bytes() == files[1].read_bytes()


STAGES = [{"epochs": 2}, {"epochs": 1, "vision": "trained", "base_lr": 1e-3}]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("killed_at", [1, 4, 6, 8])
def test_a_resumed_run_has_the_losses_of_an_unbroken_one(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Before any checkpoint, after one within an epoch, at a stage's end, and within the second stage."""
    terms: dict[str, Any] = {"epochs": None, "stages": STAGES, "batch_per_device": 4, "effective_batch": 8}
    terms["checkpoint_every"] = 2
    train(configured(out=str(tmp_path / "whole"), **terms))
    real = Stepper.step

    def dying(self: Stepper, number: int, *rest: Any) -> dict[str, float]:
        if number == killed_at:
            raise Killed
        return real(self, number, *rest)

    broken = configured(out=str(tmp_path / "broken"), **terms)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Stepper, "step", dying)
        train(broken)
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


def test_weights_of_another_architecture_are_refused(configured: Configured, resnet: Path, tmp_path: Path) -> None:
    story = train(configured(epochs=1))
    mixed = tmp_path / "mixed"
    shutil.copytree(resnet, mixed)
    shutil.copy(Path(story["model"]) / "open_clip_model.safetensors", mixed)
    with pytest.raises(ConfigError, match=r"model: folder .*mixed does not load as an open_clip model") as caught:
        train(configured(model=str(mixed), out=str(tmp_path / "new")))
    assert "\n" not in str(caught.value)


def test_fine_tuning_starts_from_the_weights_of_a_folder(configured: Configured, tmp_path: Path) -> None:
    first = train(configured(epochs=1))
    second = configured(model=first["model"], out=str(tmp_path / "second"), epochs=1)
    story = train(second)
    assert "vision frozen, text trained" in story["stages"][0]
    from safetensors.torch import load_file

    before, after = (load_file(Path(one["model"]) / "open_clip_model.safetensors") for one in (first, story))
    assert all(
        torch.equal(before[name], after[name]) == name.startswith("visual.") for name in before if "visual.proj" in name
    )
    assert not torch.equal(before["text_projection"], after["text_projection"])


def test_a_sigmoid_loss_is_an_option_and_its_bias_is_saved(configured: Configured) -> None:
    story = train(configured(loss="siglip", epochs=1))
    saved = json.loads((Path(story["model"]) / "open_clip_config.json").read_text())
    assert "init_logit_bias" in saved["model_cfg"]
    assert load_encoder(story["model"], None, "cpu").dim == 16


def test_adapters_are_added_into_the_model_and_learned_on_from_after_a_restart(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = train(configured(epochs=1))
    terms: dict[str, Any] = {"model": base["model"], "epochs": None, "stages": [{"epochs": 2, "text": "lora"}]}
    whole = train(configured(**terms, out=str(tmp_path / "whole")))
    real = Stepper.step

    def dying(self: Stepper, number: int, *rest: Any) -> dict[str, float]:
        if number == 5:
            raise Killed
        return real(self, number, *rest)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Stepper, "step", dying)
        train(configured(**terms, out=str(tmp_path / "broken")))
    train(configured(**terms, out=str(tmp_path / "broken")))
    assert losses(str(tmp_path / "broken")) == losses(str(tmp_path / "whole"))
    from safetensors.torch import load_file

    before, after = (load_file(Path(one["model"]) / "open_clip_model.safetensors") for one in (base, whole))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"logit_scale", "text_projection"} | {
        f"transformer.resblocks.0.mlp.{layer}.weight" for layer in ("c_fc", "c_proj")
    }
    assert load_encoder(whole["model"], None, "cpu").dim == 16


JUDGE = {"alignment": {"model": "starter", "pretrained": None, "sample": 60}}


def strangers(folder: Path, *, matched: bool) -> Path:
    folder.mkdir()
    rows = [
        (f"s{n:02}", drawn(n)[0], [{"text": "a dog runs on grass" if not matched else drawn(n)[1]}]) for n in range(40)
    ]
    (folder / "0.tar").write_bytes(tar_of(rows))
    return folder


def test_data_of_others_is_judged_first(configured: Configured, tmp_path: Path) -> None:
    data = strangers(tmp_path / "set", matched=False)
    with pytest.raises(
        SourceError, match=r"pairs that starter looked at are misaligned: .*, more than alignment.max_mis"
    ):
        train(configured(data=str(data), **JUDGE))
    allowed = {"alignment": {**JUDGE["alignment"], "max_misaligned": 1.0}}
    story = train(configured(data=str(data), **allowed))
    assert "pairs that starter looked at are misaligned" in (Path(story["config"]["out"]) / "log.txt").read_text()


def test_an_imbalance_of_the_two_losses_is_warned_of_once(configured: Configured) -> None:
    story = train(configured(max_imbalance=1e-6, epochs=8))
    assert len(story["warnings"]) == 1
    assert "Warning: alignment drift by step 20: the losses of the two directions differ by" in story["warnings"][0]
