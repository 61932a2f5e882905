"""What scorers measure: once a scorer and picture, whatever the bounds are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from PIL import Image

from vlmdata import progress
from vlmdata.config import QualityConfig, ScoreBounds
from vlmdata.errors import ConfigError
from vlmdata.layout import Stage, Step
from vlmdata.quality.bands import judge_shard
from vlmdata.quality.scorers import SCORERS, check_scorers, scorers
from vlmdata.quality.scorers.base import require
from vlmdata.quality.scorers.marks import marks
from vlmdata.quality.scorers.sharpness import Sharpness


class Ear(progress.Listener):
    def __init__(self) -> None:
        self.measured = 0

    def advance(self, step: Step, samples: int) -> None:
        self.measured += samples if step is Step.MARKS else 0


class Width:
    """Measures nothing that could be wrong."""

    name: ClassVar[str] = "width"
    column: ClassVar[str] = "width"
    too_little: ClassVar[str] = "narrow"
    too_much: ClassVar[str] = "wide"

    def __init__(self, version: int = 1) -> None:
        self.version = version

    def check(self) -> None: ...

    def identity(self) -> str:
        return f"width@{self.version}"

    def measure(self, image: Image.Image) -> float:
        return float("nan") if image.width == 66 else image.width


@pytest.fixture
def captioned(pictures: Any, tiny: Callable[..., Any]) -> Any:
    files = {f"{seed}.png": pictures.png(seed, 64 + seed) for seed in range(4)}
    plain = pictures.encode(Image.new("RGB", (64, 64), "orange"))
    files["plain.png"] = plain
    captions = {name: [f"a {name}", f"b {name}"] for name in files}
    return tiny(files, captions, shard_size=5).ingested().filtered().captioned()


def values(captioned: Any, manifest: Any) -> dict[str, Any]:
    table = captioned.dataset.table(manifest.tables["marks"])
    keys = {row["id"]: row["key"] for row in captioned.rows(Step.CAPTIONED, "samples")}
    assert table.schema.field("value").type == pa.float32()
    return {keys[row["id"]]: row["value"] for row in table.to_pylist()}


def test_a_scorer_has_a_checkpoint_of_its_own(captioned: Any) -> None:
    [shard], ear = captioned.shards, Ear()
    with progress.listening(ear):
        first = marks(captioned.dataset, shard, [Width()])
        both = marks(captioned.dataset, shard, [Width(), Sharpness()])
        assert (ear.measured, both["width"]) == (10, first["width"])
        assert marks(captioned.dataset, shard, [Sharpness(), Width()]) == both
        assert ear.measured == 10
        marks(captioned.dataset, shard, [Width(version=2)])
        assert ear.measured == 15
    found = values(captioned, both["width"])
    assert found == {"0.png": 64, "1.png": 65, "2.png": None, "3.png": 67, "plain.png": 64}
    assert (first["width"].samples.kept, first["width"].samples.failed) == (4, 1)
    assert values(captioned, both["sharpness"])["plain.png"] == 0
    assert marks(captioned.dataset, shard, []) == {}


SHARP = QualityConfig(scorers={"sharpness": ScoreBounds(reject_below=1)})


def test_a_mark_is_a_column_of_what_is_kept_and_a_bound_rejects(captioned: Any) -> None:
    ear = Ear()
    with progress.listening(ear):
        judged = captioned.judged({"a 0.png": 0.1, "b 0.png": 0.1})
        given = type(captioned)(captioned.dataset, captioned.config, judged.shards)
        sharp = given.each(judge_shard, SHARP)
        looser = given.each(judge_shard, QualityConfig(scorers={"sharpness": ScoreBounds(reject_above=1e9)}))
        column = given.each(judge_shard, QualityConfig(scorers={"sharpness": ScoreBounds()}))
    assert ear.measured == 5
    assert {row["sharpness"] for row in judged.rows(Step.CHECKED, "samples")} == {None}

    report = sharp.report(Stage.CHECKED)
    report.samples.check("samples")
    report.captions.check("captions")
    assert report.reasons == {"blurred": 1, "misaligned": 1}
    assert report.caption_reasons == {"misaligned": 2, "sample_rejected": 2}
    [blurred] = [row for row in sharp.rows(Step.CHECKED, "rejects") if row["code"] == "blurred"]
    assert (blurred["key"], blurred["value"], blurred["bound"]) == ("plain.png", 0.0, 1.0)
    assert all(row["sharpness"] > 1 for row in sharp.rows(Step.CHECKED, "samples"))
    for kept in (looser, column):
        assert min(row["sharpness"] for row in kept.rows(Step.CHECKED, "samples")) == 0.0
        assert {row["nsfw"] for row in kept.rows(Step.CHECKED, "samples")} == {None}


def test_what_is_beyond_a_bound_is_not_held_for_another_caption(captioned: Any) -> None:
    judged = captioned.judged({"a plain.png": 0.25, "b plain.png": 0.9}).each(judge_shard, SHARP)
    [row] = judged.rows(Step.CHECKED, "rejects")
    assert (row["outcome"], row["code"]) == ("rejected", "blurred")
    assert {row["code"] for row in judged.rows(Step.CHECKED, "caption_rejects")} == {"sample_rejected"}


def test_scorers_are_asked_in_one_order() -> None:
    bounds = {name: ScoreBounds() for name in ("sharpness", "text", "nsfw")}
    asked = scorers(QualityConfig(scorers=bounds))  # type: ignore[arg-type]
    assert [one.name for one in asked] == ["nsfw", "text", "sharpness"] == list(SCORERS)
    assert scorers(QualityConfig()) == {}


def test_bounds_that_let_nothing_through_are_refused() -> None:
    check_scorers(QualityConfig())
    check_scorers(SHARP)
    with pytest.raises(ConfigError, match=r"sharpness: reject_below = 2\.0 is above reject_above = 1\.0"):
        check_scorers(QualityConfig(scorers={"sharpness": ScoreBounds(reject_below=2, reject_above=1)}))


def test_a_scorer_whose_package_is_missing_says_what_to_install() -> None:
    require("text", "json", "json", "none")
    with pytest.raises(ConfigError, match=r"the package some-package, which is not installed; install vlmdata\[x\]"):
        require("nsfw", "no_module_of_that_name", "some-package", "x")
