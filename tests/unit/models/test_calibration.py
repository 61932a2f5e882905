"""Bands from matched and shuffled pairs, and which bands a model gets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vlmdata.errors import ConfigError
from vlmdata.models.calibration import (
    LAION_ACCEPT,
    LAION_REJECT,
    MATCHED_REJECTED,
    SHUFFLED_ACCEPTED,
    TOLD_SHARES,
    Bands,
    Calibration,
    auc,
    calibrate,
    own_calibrations,
    pair_scores,
    thresholds_for,
)
from vlmdata.models.source import model_identity

cosines = st.floats(-1, 1, width=32)
scores = st.integers(20, 200).flatmap(lambda n: arrays(np.float32, n, elements=cosines))


def local_model(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_model.safetensors").write_bytes(b"w")
    (folder / "open_clip_config.json").write_text('{"model_cfg": {}}')
    return str(folder)


@given(scores, scores)
def test_the_bands_keep_both_promises(matched: np.ndarray, shuffled: np.ndarray) -> None:
    bands = calibrate(matched, shuffled)
    assert -1 <= bands.reject_below <= bands.accept_above <= 1
    assert (matched < np.float32(bands.reject_below)).mean() <= MATCHED_REJECTED
    assert (shuffled > np.float32(bands.accept_above)).mean() <= SHUFFLED_ACCEPTED


@given(scores, scores, st.sampled_from([0.5, 0.9, 0.97, 1.0]))
def test_the_share_to_be_kept_is_kept(matched: np.ndarray, shuffled: np.ndarray, keep: float) -> None:
    bands = calibrate(matched, shuffled, keep)
    assert (matched >= np.float32(bands.reject_below)).mean() >= keep
    assert (shuffled > np.float32(bands.accept_above)).mean() <= SHUFFLED_ACCEPTED
    assert [one.keep for one in bands.thresholds] == sorted({*TOLD_SHARES, keep})
    assert bands.reject_below <= next(one.threshold for one in bands.thresholds if one.keep == keep)


@given(scores, scores)
def test_auc_is_the_share_of_couples_in_order(matched: np.ndarray, shuffled: np.ndarray) -> None:
    couples = np.sign(matched[:, None].astype(float) - shuffled[None])
    assert auc(matched, shuffled) == pytest.approx((couples.mean() + 1) / 2)


def test_the_bands_of_a_good_model_leave_the_gap_undecided() -> None:
    bands = calibrate(np.linspace(0.5, 0.9, 100, dtype=np.float32), np.linspace(0, 0.2, 100, dtype=np.float32))
    assert bands.auc == 1
    assert bands.reject_below < 0.2 and bands.accept_above >= 0.5
    assert bands.matched_rejected == 0 and bands.shuffled_accepted == 0


def test_too_few_or_broken_scores_are_refused() -> None:
    enough = np.zeros(20, np.float32)
    for bad in (enough[:19], np.full(20, np.nan, np.float32)):
        with pytest.raises(ConfigError, match="matched"):
            calibrate(bad, enough)
        with pytest.raises(ConfigError, match="shuffled"):
            calibrate(enough, bad)


def test_shuffled_pairs_are_never_matched_ones() -> None:
    unit = np.eye(7, dtype=np.float32)
    matched, shuffled = pair_scores(unit, unit, rounds=50)
    assert np.array_equal(matched, np.ones(7)) and np.array_equal(shuffled, np.zeros(42))
    again = pair_scores(unit, unit, rounds=50)
    assert np.array_equal(again[1], shuffled)


def test_pairs_that_are_right_all_the_same_are_no_wrong_ones() -> None:
    unit = np.eye(6, dtype=np.float32)
    everything = pair_scores(unit, unit)[1]
    _, shuffled = pair_scores(unit, unit, alike=lambda rows, others: rows + others == 5)
    assert len(everything) == 30 and len(shuffled) == 24
    assert not len(pair_scores(unit, unit, alike=lambda rows, others: rows >= 0)[1])


def some_bands() -> Bands:
    return calibrate(np.linspace(0, 1, 50, dtype=np.float32), np.linspace(-1, 0.5, 50, dtype=np.float32))


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    saved = some_bands().calibration("m@1", "de", "made here", sample=60, gallery=20)
    saved.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == saved
    again = tmp_path / "again.json"
    Calibration.load(tmp_path / "calibration.json").save(again)
    assert again.read_bytes() == (tmp_path / "calibration.json").read_bytes()


OLD = {"model": "m", "language": "en", "accept_above": 0.2, "reject_below": 0, "auc": None, "n": 0, "note": ""}


def write(folder: Path, **values: object) -> Path:
    path = folder / "calibration.json"
    path.write_text(json.dumps({**OLD, **values}))
    return path


def test_a_file_without_the_curve_is_read_and_an_unknown_field_is_no_trouble(tmp_path: Path) -> None:
    found = Calibration.load(write(tmp_path, more=1))
    assert (found.roc, found.thresholds, found.gallery, found.keep) == ((), (), None, None)
    assert found.accept_above == 0.2


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model": 1}', '"', ""])
def test_a_broken_file_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="no calibration file") as told:
        Calibration.load(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "values",
    [
        {"accept_above": "x"},
        {"accept_above": None},
        {"accept_above": float("nan")},
        {"auc": float("inf")},
        {"n": "many"},
        {"roc": [[0.1, 0.2]]},
        {"thresholds": [{"keep": 0.9}]},
        {"model": ["m"]},
        {"gallery": "large"},
    ],
)
def test_a_field_of_another_kind_is_told(tmp_path: Path, values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"no calibration file .{next(iter(values))}"):
        Calibration.load(write(tmp_path, **values))


@pytest.mark.parametrize("bands", [(0.1, 0.2), (2, 0), (0, -2)])
def test_bands_upside_down_are_refused(tmp_path: Path, bands: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="reject_below <= accept_above"):
        Calibration.load(write(tmp_path, accept_above=bands[0], reject_below=bands[1]))


def test_a_gallery_for_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gallery = 3"):
        Calibration.load(write(tmp_path, gallery=3))


def test_a_file_that_cannot_be_had_or_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Calibration.load(tmp_path / "nowhere.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        some_bands().calibration("m", "en", "").save(tmp_path / "no" / "folder.json")


def test_starter_brings_its_own_bands() -> None:
    calibration = thresholds_for("starter")
    assert calibration.model == model_identity("starter")
    assert calibration.n >= 900 and calibration.auc is not None and calibration.auc > 0.8


def test_laions_figures_say_whose_they_are() -> None:
    own = thresholds_for("ViT-B-32", "openai")
    assert (own.accept_above, own.reject_below, own.n) == (LAION_ACCEPT, LAION_REJECT, 0)
    assert "calibrate" not in own.note and not own.borrowed
    others = (thresholds_for("ViT-B-16", "openai"), thresholds_for("ViT-B-32", "openai", language="zh"))
    assert all("calibrate" in other.note and other.accept_above == LAION_ACCEPT for other in others)
    assert all(other.borrowed for other in others)


def test_a_folders_own_file_is_found_for_its_language(tmp_path: Path) -> None:
    model = local_model(tmp_path / "m")
    identity = model_identity(model)
    Calibration(identity, "en", 0.5, 0.4, 0.9, 50, "").save(tmp_path / "m" / "calibration.json")
    Calibration(identity, "de", 0.3, 0.2, 0.9, 50, "").save(tmp_path / "m" / "calibration.de.json")
    assert thresholds_for(model).accept_above == 0.5
    assert thresholds_for(model, language="de").accept_above == 0.3
    assert thresholds_for(model, language="fr").n == 0
    assert sorted(own_calibrations(model)) == ["de", "en"]


def test_bands_found_on_other_weights_are_refused(tmp_path: Path) -> None:
    model = local_model(tmp_path / "m")
    Calibration("m@0123", "en", 0.5, 0.4, 0.9, 50, "").save(tmp_path / "m" / "calibration.json")
    with pytest.raises(ConfigError, match="calibrate again"):
        thresholds_for(model)
