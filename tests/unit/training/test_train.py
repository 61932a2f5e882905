"""Whole trainings of small models: what learns, what stays, what they are measured with, what is judged first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.training.conftest import (
    PREPROCESS,
    Configured,
    broken_off,
    drawn,
    losses,
    tar_of,
    write_export,
)
from vlmdata.errors import BrokenInvariant, ConfigError, SourceError
from vlmdata.measure.encoder import load_encoder
from vlmdata.training.config import load_preset
from vlmdata.training.engine import checkpoints, evaluation
from vlmdata.training.engine.step import Stepper
from vlmdata.training.loading import decoded
from vlmdata.training.train import train
from vlmdata.training.transforms import measuring


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
    with monkeypatch.context() as patched:
        broken_off(patched, configured(**terms, out=str(tmp_path / "broken")), 5)
    train(configured(**terms, out=str(tmp_path / "broken")))
    assert losses(str(tmp_path / "broken")) == losses(str(tmp_path / "whole"))
    from safetensors.torch import load_file

    before, after = (load_file(Path(one["model"]) / "open_clip_model.safetensors") for one in (base, whole))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"logit_scale", "text_projection"} | {
        f"transformer.resblocks.0.{layer}"
        for layer in ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
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
