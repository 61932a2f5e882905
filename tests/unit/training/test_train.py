"""Whole trainings of small models: what they leave, how they go on, how they end."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.training.conftest import PREPROCESS, Configured, drawn, tar_of, write_export
from vlmdata.errors import BrokenInvariant, ConfigError, Diverged, SourceError
from vlmdata.measure.encoder import load_encoder
from vlmdata.training import story as story_module
from vlmdata.training.config import load_preset
from vlmdata.training.engine import checkpoints, devices, evaluation
from vlmdata.training.engine import loop as looping
from vlmdata.training.engine import step as stepping
from vlmdata.training.engine.step import Stepper
from vlmdata.training.loading import decoded
from vlmdata.training.log import read_figures
from vlmdata.training.schedule import stage_at, stages_of
from vlmdata.training.train import train
from vlmdata.training.transforms import measuring

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


def dies(*_: Any) -> None:
    raise Killed


def killed_at(patched: pytest.MonkeyPatch, step: int) -> None:
    """The run dies as it is about to take a step, counted from 0."""
    real = Stepper.step

    def dying(self: Stepper, number: int, *rest: Any) -> dict[str, float]:
        if number == step:
            raise Killed
        return real(self, number, *rest)

    patched.setattr(Stepper, "step", dying)


@pytest.mark.parametrize("at", [1, 4, 6, 8])
def test_a_resumed_run_has_the_losses_of_an_unbroken_one(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before any checkpoint, after one within an epoch, at a stage's end, and within the second stage."""
    terms: dict[str, Any] = {"epochs": None, "stages": STAGES, "batch_per_device": 4, "effective_batch": 8}
    terms["checkpoint_every"] = 2
    train(configured(out=str(tmp_path / "whole"), **terms))
    broken = configured(out=str(tmp_path / "broken"), **terms)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, at)
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
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, 5)
        train(configured(**terms, out=str(tmp_path / "broken")))
    train(configured(**terms, out=str(tmp_path / "broken")))
    assert losses(str(tmp_path / "broken")) == losses(str(tmp_path / "whole"))
    from safetensors.torch import load_file

    before, after = (load_file(Path(one["model"]) / "open_clip_model.safetensors") for one in (base, whole))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"logit_scale", "text_projection"} | {
        f"transformer.resblocks.0.{layer}" for layer in ("attn.in_proj_weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
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
            killed_at(patched, at)
            with pytest.raises(Killed):
                train(broken)
        assert train(broken)["warnings"] == story["warnings"], at


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


def test_a_tower_may_learn_in_one_stage_and_stay_in_the_next(configured: Configured) -> None:
    stages = [{"epochs": 1, "text": "trained"}, {"epochs": 1, "vision": "trained", "text": "frozen", "base_lr": 1e-3}]
    config = configured(epochs=None, stages=stages, gradient_checkpointing=True, keep_checkpoints=3)
    train(config)
    from safetensors.torch import load_file

    first, second = (
        load_file(one / "open_clip_model.safetensors") for one in checkpoints.checkpoints(Path(config.out))
    )
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved and all(name.startswith(("visual.", "logit_")) for name in moved)
    saved = [line for line in (Path(config.out) / "log.txt").read_text().splitlines() if "checkpointing: on" in line]
    assert len(saved) == 2 and all(int(line.rpartition(": ")[2].removesuffix("% saved")) > 10 for line in saved)


def test_what_is_frozen_is_looked_at_after_each_epoch(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Stepper.step

    def meddling(self: Stepper, number: int, *rest: Any) -> dict[str, float]:
        if number == 5:
            with torch.no_grad():
                self.pair.model.visual.proj[0, 0] += 1e-3
        return real(self, number, *rest)

    monkeypatch.setattr(Stepper, "step", meddling)
    with pytest.raises(BrokenInvariant, match=r"training: visual\.proj is frozen and has changed"):
        train(configured(epochs=None, stages=[{"epochs": 3}]))


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


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [cut, Path.unlink])
@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "trainer.pt"])
def test_a_damaged_checkpoint_is_one_line_and_without_it_the_run_goes_on(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, name: str, damage: Any
) -> None:
    config = configured(checkpoint_every=2)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, 5)
        train(config)
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
    from tests.unit.training.conftest import TEXT, VIT

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


def test_pairs_that_say_left_or_right_are_told_and_never_mirrored(configured: Configured, tmp_path: Path) -> None:
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


def test_what_is_measured_is_held_out_and_seen_by_the_model_s_own_transform(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, set[str]]] = []
    real = evaluation.embeddings

    def watched(pair: Any, pairs: Any, rows: Any, device: str) -> Any:
        assert not any(module.training for module in pair.modules())
        table = pairs.samples.table.take(rows)
        seen.append((pairs.measuring, set(table["split"].to_pylist())))
        return real(pair, pairs, rows, device)

    monkeypatch.setattr(evaluation, "embeddings", watched)
    train(configured(epochs=2))
    assert len(seen) == 2 and {split for _, splits in seen for split in splits} == {"validation"}
    picture = decoded(drawn(7)[0])
    assert all(torch.equal(own(picture), measuring(PREPROCESS)(picture)) for own, _ in seen)


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


def test_parts_of_a_training_that_ran_elsewhere_are_on_record(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(checkpoint_every=2)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, 3)
        patched.setattr(devices, "_processor", lambda: "another one")
        train(config)
    story = train(config)
    assert [one["hardware"]["processor"] for one in story["earlier"]] == ["another one"]
    assert story["hardware"]["processor"] != "another one"
    with monkeypatch.context() as patched:
        patched.setattr(devices, "_processor", lambda: "a third one")
        patched.setattr(looping, "finished_model", dies)
        with pytest.raises(Killed):
            train(config)
        assert json.loads((Path(config.out) / "run.json").read_text())["finished"], "what is done stays done"
    with monkeypatch.context() as patched:
        patched.setattr(devices, "_processor", lambda: "a third one")
        again = train(config)
    assert (again["hardware"], again["earlier"]) == (story["hardware"], story["earlier"]), "it did nothing there"


def test_what_began_in_one_precision_does_not_go_on_in_another(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(checkpoint_every=2)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, 3)
        patched.setattr(devices, "_fast_on_cpu", lambda: (True, "this processor has AMX"))
        train(config)
    assert json.loads((Path(config.out) / "run.json").read_text())["precision"] == "bf16"
    monkeypatch.setattr(devices, "_fast_on_cpu", lambda: (False, "this processor has no AMX"))
    with pytest.raises(ConfigError, match=r"began in bf16, and would go on in fp32 .this processor has no AMX.;"):
        train(config)


def test_a_whole_run_in_bf16_learns(configured: Configured, tmp_path: Path) -> None:
    data = write_export(tmp_path / "set", samples=160)
    terms: dict[str, Any] = {"data": str(data), "epochs": 6, "batch_per_device": 16, "base_lr": 5e-3}
    low = train(configured(**terms, precision="bf16", effective_batch=32))
    found = losses(low["config"]["out"])
    assert low["precision"] == "bf16" and "precision: bf16 (as the config says, though" in log_of(low)
    assert np.mean(found[-3:]) < 0.95 * np.mean(found[:3])
    full = train(configured(**terms, precision="fp32", effective_batch=32, out=str(tmp_path / "full")))
    assert losses(full["config"]["out"]) != found


def log_of(story: dict[str, Any]) -> str:
    return (Path(story["config"]["out"]) / "log.txt").read_text()


def test_tensorboard_has_every_figure_once_also_of_a_run_that_was_broken_off(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = configured(trackers=["tensorboard"], checkpoint_every=2)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_at(patched, 5)
        train(config)
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


def test_the_preset_of_the_starter_trains(configured: Configured, tmp_path: Path, export: Path) -> None:
    """As it ships, but for the batch: 512 pictures would take a minute here."""
    small = [
        "allow_small_batch=true",
        "batch_per_device=8",
        "effective_batch=8",
        "workers=0",
        "validation_share=0.3",
        "device=cpu",
    ]
    config = load_preset("starter", [f"data={export}", f"out={tmp_path / 'out'}", "epoch_steps=1", *small])
    story = train(config)
    assert (story["finished"] and len(story["evaluations"]) == sum(stage.epochs for stage in config.stages)) or 1
    assert load_encoder(story["model"], None, "cpu").dim == 384
