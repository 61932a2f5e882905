"""What a model learned, in the report of the set that it learned from: the training's own record and curves."""

from __future__ import annotations

import json
import re
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.conftest import Configured, write_export
from vlmdata import cli
from vlmdata.layout import Stage
from vlmdata.runs import start_run
from vlmdata.training.train import train

Command = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def report(
    tiny: Callable[..., Any], pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Command:
    """`vlmdata report` of a set, with a training; its exit code, the line that it said, and the page."""
    start = tiny({"a.png": pictures.png(1)}, {"a.png": ["a"]})
    run = start_run(start.dataset, start.config)
    run.stage_done(start.ingested().report(Stage.RAW))

    def asked(training: Path) -> tuple[Any, str, str]:
        page = tmp_path / "page.html"
        page.unlink(missing_ok=True)
        words = ["--store", start.dataset.store_url, "--dataset", "tiny", "--out", str(page)]
        monkeypatch.setattr(sys, "argv", ["vlmdata", "report", *words, "--training", str(training)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        [line] = (said.out + said.err).splitlines()
        return ended.value.code, line, page.read_text() if page.is_file() else ""

    return asked


@pytest.fixture
def trained(configured: Configured, tmp_path: Path) -> Callable[..., Path]:
    """The folder of a training on an export of the same dataset."""
    data = write_export(tmp_path / "tiny-export", dataset="tiny")

    def make(**changes: Any) -> Path:
        return Path(train(configured(data=str(data), **changes))["config"]["out"])

    return make


def test_recall_of_each_epoch_and_the_curves_are_in_the_page(report: Command, trained: Callable[..., Path]) -> None:
    out = trained()
    code, line, page = report(out)
    assert code == 0, line
    section = page.partition('<section id="training"')[2].partition("</section>")[0]
    story = json.loads((out / "run.json").read_text())
    cells = [re.findall(r"<td[^>]*>([^<]*)", row) for row in section.partition("<tbody>")[2].split("<tr>")[1:]]
    assert [row[:2] for row in cells] == [[str(one["epoch"]), str(one["step"])] for one in story["evaluations"]]
    for row, one in zip(cells, story["evaluations"], strict=True):
        told = [f"{one[f'{way}_r{k}']:.1%}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
        assert [cell.partition(" ")[0] for cell in row[2:]] == told
    assert f"trained on tiny: {story['data']['train']} pairs" in section and "effective batch 8" in section
    [curves] = re.findall(r'src="data:image/png;base64,([^"]*)"', section)
    assert b64decode(curves) == (out / "curves.png").read_bytes()


def test_of_many_epochs_the_last_are_shown(report: Command, trained: Callable[..., Path]) -> None:
    out = trained(epochs=1)
    [one] = json.loads((out / "run.json").read_text())["evaluations"]
    rewritten(out, evaluations=[{**one, "epoch": number} for number in range(1, 101)])
    code, _, page = report(out)
    section = page.partition('<section id="training"')[2].partition("</section>")[0]
    assert code == 0 and [re.findall(r"<td[^>]*>([^<]*)", row)[0] for row in section.split("<tr>")[2:]] == [
        str(number) for number in range(41, 101)
    ]


def test_words_of_a_record_are_words(report: Command, trained: Callable[..., Path]) -> None:
    """Whoever hands over a training chose its names."""
    out = trained(epochs=1)
    story = json.loads((out / "run.json").read_text())
    story["config"]["model"] = "<script>alert(1)</script>"
    (out / "run.json").write_text(json.dumps(story))
    (out / "curves.png").write_bytes(b"<svg onload=alert(1)>")
    code, _, page = report(out)
    assert code == 0 and "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "data:image/png" not in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda out: (out / "run.json").unlink(), "holds no training; give the `out` of vlmdata train"),
        (lambda out: rewritten(out, finished=False), "is not finished; run vlmdata train again, and it goes on"),
        (lambda out: rewritten(out, evaluations=[{"epoch": 1}]), "its run.json is no training's ('step')"),
        (
            lambda out: rewritten(out, data={"dataset": "cards"}),
            "was trained on 'cards', and this is a report of 'tiny'; give a training of this one",
        ),
    ],
)
def test_what_is_no_finished_training_is_one_line(
    report: Command, trained: Callable[..., Path], change: Callable[[Path], None], said: str
) -> None:
    out = trained(epochs=1)
    change(out)
    code, line, page = report(out)
    assert (code, page) == (2, "") and line == f"vlmdata: --training {out}: {said}"


def rewritten(out: Path, **changes: Any) -> None:
    story = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**story, **changes}))


def test_a_record_that_is_damaged_is_one_line(report: Command, trained: Callable[..., Path]) -> None:
    out = trained(epochs=1)
    (out / "run.json").write_text("{")
    code, line, _ = report(out)
    assert code == 2 and line.startswith(f"vlmdata: --training: {out / 'run.json'} cannot be read")
