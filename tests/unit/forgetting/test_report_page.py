"""A run's report shows pictures and captions: what is withdrawn leaves it, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vlmdata.forgetting.forget import forget
from vlmdata.forgetting.who import Asked
from vlmdata.layout import REPORT, Stage, Step, run_file
from vlmdata.report.make import make_report
from vlmdata.runs import report


def test_a_report_that_shows_a_withdrawn_picture_is_taken_away(growing: Callable[..., Any], pictures: Any) -> None:
    set_ = growing({f"{name}.png": pictures.png(seed) for seed, name in enumerate("abcd")})
    for name in "xy":
        run = set_.begin()
        version = set_.publish(run=run)
        for stage in (Stage.RAW, Stage.FILTERED, Stage.CAPTIONED, Stage.CHECKED):
            run.stage_done(report(set_.dataset, stage, version.shards))
        run.attach(REPORT, make_report(run))
        set_.add({f"{name}.png": pictures.png(50 + ord(name))})
    paths = [run_file(set_.dataset.name, number, REPORT) for number in (1, 2)]
    samples = set_.rows(version.shards, Step.RAW, "samples")
    newer = next(row["id"] for row in samples if row["key"] == "x.png")
    first, second = (set_.dataset.store.get(path) for path in paths)
    assert newer.encode() not in first and newer.encode() in second

    receipt = forget(set_.dataset, Asked.of([newer], (), (), ()), lambda _: None)
    assert receipt.samples == 1
    assert set_.dataset.store.get(paths[0]) == first, "it showed nothing of it"
    left = set_.dataset.store.get(paths[1])
    assert b"withdrawn" in left and newer.encode() not in left and b"data:image" not in left
