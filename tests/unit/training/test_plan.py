"""Config, batch, schedule: what is refused, and why, before anything is read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.errors import ConfigError, SourceError
from vlmdata.training.batch import batch_of
from vlmdata.training.config import LAST_RATE, TRAIN, TrainConfig, load_preset, presets
from vlmdata.training.schedule import stage_at, stages_of

LEAST = {"data": "./set", "out": "./out", "model": "starter", "epochs": 3}


def config(**changes: Any) -> TrainConfig:
    return TRAIN.parse({**LEAST, **changes})


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config(**changes)
    return str(caught.value)


def test_a_training_that_hides_nothing_is_the_one_that_it_was_before_anything_could_be_hidden() -> None:
    assert "projection_dropout" not in config().settings()
    assert config(projection_dropout=0.3).settings()["projection_dropout"] == 0.3
    assert "projection_dropout = 1" in refused(projection_dropout=1)


@pytest.mark.parametrize("share", [0.0, 0.04, 0.11, 1])
def test_a_warmup_outside_bounds_is_refused_with_the_reason(share: float) -> None:
    said = refused(warmup=share)
    assert f"warmup = {share}: expected a share of the steps from 0.05 to 0.10: a shorter warmup" in said


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"base_rl": 1}, "unknown key 'base_rl'; did you mean 'base_lr'?"),
        (
            {"stages": [{"epochs": 1, "vison": "frozen"}]},
            "unknown key 'stages.0.vison'; did you mean 'stages.0.vision'?",
        ),
        (
            {"stages": [{"epochs": 1, "text": "frozen"}]},
            "stages.0 = {'epochs': 1, 'text': 'frozen'}: expected a stage in",
        ),
        ({"stages": [{"epochs": 1}]}, "epochs = 3, but its stages have 1 together"),
        ({"epochs": None}, "expected epochs, or stages that have their own"),
        ({"crop_scale": [0.9, 0.5]}, "crop_scale = [0.9, 0.5]: expected two shares of a picture's area, the smaller"),
        ({"precision": "fp16"}, "precision = 'fp16': expected 'auto', 'bf16' or 'fp32'"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_change(changes: dict[str, Any], expected: str) -> None:
    said = refused(**changes)
    assert expected in said
    assert "\n" not in said


def test_paths_are_taken_from_where_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("data: set\nout: ../out\nmodel: ./mine\nepochs: 1\n")
    read = TRAIN.read(file, ["seed=7"])
    assert (read.data, read.out) == (str(tmp_path / "set"), str(tmp_path.parent / "out"))
    assert (read.model, read.seed) == (str(tmp_path / "mine"), 7)


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_a_config_once_data_and_out_are_said(name: str) -> None:
    read = load_preset(name, ["data=./set", "out=./out"])
    batch = batch_of(read, 1)
    assert batch.effective >= 256
    assert stages_of(read, 10 * batch.effective, batch.effective, from_scratch=False)


def test_the_presets_are_the_promised_ones() -> None:
    assert presets() == ["clip-finetune-b32", "lit-multilingual", "starter"]
    with pytest.raises(ConfigError, match="expected one of clip-finetune-b32, lit-multilingual, starter"):
        load_preset("mine", [])
    with pytest.raises(ConfigError, match="preset starter: the key 'data' is missing"):
        load_preset("starter", [])


def test_locked_image_tuning_locks_the_image() -> None:
    read = load_preset("lit-multilingual", ["data=./set", "out=./out"])
    assert {(stage.vision, stage.text) for stage in read.stages} == {("frozen", "trained")}


def test_a_batch_below_256_is_refused_unless_it_is_allowed() -> None:
    with pytest.raises(ConfigError, match="effective batch = 128: expected 256 or more, for a contrastive loss needs"):
        batch_of(config(batch_per_device=64), 2)
    assert batch_of(config(batch_per_device=64, allow_small_batch=True), 2).effective == 128
    assert batch_of(config(batch_per_device=64), 4).effective == 256


def test_the_effective_batch_is_made_of_chunks() -> None:
    batch = batch_of(config(batch_per_device=64, effective_batch=512), 2)
    assert batch.as_dict() == {"per_device": 64, "devices": 2, "chunks": 4, "effective": 512}
    with pytest.raises(
        ConfigError, match="expected a multiple of batch_per_device x devices = 64 x 3 = 192, such as 384"
    ):
        batch_of(config(batch_per_device=64, effective_batch=512), 3)


def test_a_pretrained_vision_tower_is_unfrozen_at_a_tenth_of_the_rate() -> None:
    two = config(epochs=None, base_lr=1e-3, stages=[{"epochs": 2}, {"epochs": 1, "vision": "trained"}])
    first, second = stages_of(two, 1000, 100, from_scratch=False)
    assert (first.vision, first.text, first.peak, first.steps) == ("frozen", "trained", 1e-3, 20)
    assert (second.vision, second.peak, second.first_step, second.first_epoch) == (
        "trained",
        pytest.approx(1e-4),
        20,
        2,
    )
    assert stages_of(two, 1000, 100, from_scratch=True)[1].peak == 1e-3
    assert stage_at([first, second], 19) is first
    assert stage_at([first, second], 20) is second


def test_new_weights_all_learn_where_no_stage_says_otherwise() -> None:
    assert stages_of(config(), 1000, 100, from_scratch=True)[0].vision == "trained"
    assert stages_of(config(), 1000, 100, from_scratch=False)[0].vision == "frozen"


def test_a_stage_whose_rate_does_not_decay_is_refused() -> None:
    low = config(epochs=None, base_lr=1e-5, stages=[{"epochs": 1}, {"epochs": 1, "vision": "trained"}])
    with pytest.raises(ConfigError, match=r"stages.1: its rate 1e-06 \(base_lr / 10, as its vision tower learns\)"):
        stages_of(low, 1000, 100, from_scratch=False)


def test_less_data_than_a_batch_is_refused() -> None:
    with pytest.raises(SourceError, match="99 pairs to train on, fewer than one effective batch of 100"):
        stages_of(config(), 99, 100, from_scratch=True)


@given(epochs=st.integers(1, 30), batches=st.integers(1, 400), peak=st.floats(2e-6, 1.0), share=st.floats(0.05, 0.10))
def test_every_schedule_rises_to_its_peak_and_falls_to_the_last_rate(
    epochs: int, batches: int, peak: float, share: float
) -> None:
    [stage] = stages_of(config(epochs=epochs, base_lr=peak, warmup=share), batches, 1, from_scratch=True)
    rates = [stage.rate(step) for step in range(stage.steps)]
    top = stage.warmup - 1
    assert rates[top] == pytest.approx(peak)
    assert all(a < b for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a >= b * (1 - 1e-12) for a, b in zip(rates[top:], rates[top + 1 :], strict=False))
    assert min(rates[top:]) >= LAST_RATE
    if stage.steps > stage.warmup + 1:
        assert rates[-1] == pytest.approx(LAST_RATE)


def test_the_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    [stage] = stages_of(config(epochs=2, base_lr=1e-3, warmup=0.1), 105, 1, from_scratch=True)
    rates = [stage.rate(step) for step in range(stage.steps)]
    assert (stage.steps, stage.warmup) == (210, 21)
    assert rates[:21] == [pytest.approx(1e-3 * (n + 1) / 21) for n in range(21)]
    falling = rates[21:]
    assert falling[0] == pytest.approx(1e-3)
    assert falling[94] == pytest.approx((1e-3 + LAST_RATE) / 2), "half-way, where a line and a cosine meet"
    third = LAST_RATE + (1e-3 - LAST_RATE) * 0.75
    assert falling[round(188 / 3)] == pytest.approx(third, rel=1e-2), "after a third, where a line would be at two"
    assert falling[-1] == pytest.approx(LAST_RATE)


@given(steps=st.integers(1, 2_000), share=st.floats(0.05, 0.10))
def test_a_warmup_is_the_share_to_the_nearest_step_and_what_has_too_few_is_told(steps: int, share: float) -> None:
    [stage] = stages_of(config(epochs=1, warmup=share), steps, 1, from_scratch=True)
    assert abs(stage.warmup - share * steps) <= 0.5 or (stage.warmup == 1 and steps < 10)
    assert bool(stage.doubt) == (steps < 10)
    assert stage.doubt is None or f"has {steps} steps, too few for a warmup of 5% to 10% of them" in stage.doubt
