"""`vlmdata calibrate` and `vlmdata health` as people run them, over a real build with the small model."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.conftest import Built
from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment
from tests.integration.processes import run as run_process
from tests.integration.processes import vlmdata as command
from tests.integration.sample import build_here, export_of, write_config
from vlmdata import cli
from vlmdata.checkpoint import Dataset
from vlmdata.config_reading import parse_config
from vlmdata.quality.judges import judges
from vlmdata.runs import existing_run, start_run

pytestmark = pytest.mark.integration

Run = Callable[..., tuple[int, str, str]]
ITALIAN = "quality.languages={it: {model: starter-multilingual}}"
GERMAN = "quality.languages={de: {model: starter-multilingual}}"
KEEP = 0.9


@dataclass(frozen=True)
class Mine:
    """The undisturbed build, in a store that a test may write to."""

    folder: Path
    config: dict[str, Any]

    @property
    def file(self) -> str:
        """Its config, for a command line."""
        return str(write_config(self.folder / "config.yaml", self.config))

    @property
    def where(self) -> tuple[str, ...]:
        """Its place, for a command line."""
        return ("--store", str(self.config["store"]), "--dataset", str(self.config["dataset"]))

    @property
    def dataset(self) -> Dataset:
        """The dataset itself."""
        return Dataset(str(self.config["store"]), str(self.config["dataset"]))


@pytest.fixture
def mine(undisturbed: Built, tmp_path: Path) -> Mine:
    """A copy, so that others find the build as it was."""
    folder = tmp_path / "mine"
    shutil.copytree(undisturbed.config["store"], folder / "store")
    return Mine(folder, {**undisturbed.config, "store": str(folder / "store")})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line in this process, which has its libraries loaded: exit code, standard output and error."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def _run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vlmdata", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return _run


def refused(told: tuple[int, str, str], *, at_once: bool = True) -> str:
    """The one line; before it, if the stages were looked at first, only what they counted."""
    code, out, err = told
    *before, line = err.splitlines()
    assert (code, out) == (2, ""), err
    assert line.startswith("vlmdata: ")
    assert all(re.fullmatch(r"0\d [a-z ]+: \d+ samples", one) for one in before)
    assert not (at_once and before)
    return line


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def exported(files: dict[str, bytes]) -> pa.Table:
    """The rows of an export's parquet files."""
    parts = [pq.read_table(io.BytesIO(data)) for path, data in sorted(files.items()) if path.endswith(".parquet")]
    return pa.concat_tables(parts).drop_columns(["image"])


def bests(rows: pa.Table) -> dict[str, np.float32]:
    """The best score of each exported image."""
    return {row["id"]: max(np.float32(one["score"]) for one in row["captions"]) for row in rows.to_pylist()}


def test_a_calibration_is_written_told_and_is_the_same_as_json(run: Run, mine: Mine, undisturbed: Built) -> None:
    runs = tree(mine.folder / "store" / "sample" / "runs")
    code, text, err = run("calibrate", mine.file)
    assert code == 0, err
    written = Path("calibration.json").read_bytes()
    found = json.loads(written)
    # Of each exported picture, for every one of them has an English caption: what the default is.
    assert (found["n"], found["language"], found["keep"]) == (exported(undisturbed.files).num_rows, "en", 0.95)
    first, *rest = text.splitlines()
    told = re.fullmatch(
        r"(starter@\w+), captions in en: ([\d,]+) pairs against ([\d,]+) shuffled ones, AUC (0\.\d+)", first
    )
    assert told
    assert (told[1], int(told[2]), told[4]) == (found["model"], found["n"], f"{found['auc']:.3f}")
    for bound in ("reject_below", "accept_above"):
        [line] = [line for line in rest if line.startswith(bound)]
        assert line.startswith(f"{bound} {found[bound]:+.4f}: ")
    assert rest[-1].startswith("Wrote calibration.json.")

    code, text, err = run("calibrate", mine.file, "--out", "again.json", "--json")
    assert code == 0, err
    record = json.loads(text)
    assert Path("again.json").read_bytes() == written
    assert {name: record[name] for name in found} == found
    assert record["shuffled"] == int(told[3].replace(",", "")) and record["sentence"] == first
    # It is no run: `status` and `health` go on telling of the build.
    assert tree(mine.folder / "store" / "sample" / "runs") == runs


def test_what_is_asked_for_is_what_is_measured(run: Run, mine: Mine) -> None:
    line = refused(run("calibrate", mine.file, "--language", "de-AT", "--set", GERMAN), at_once=False)
    assert re.search(r"\d+ images with a caption in de make \d+ wrong pairs; expected 20 or more", line)
    code, text, err = run("calibrate", mine.file, "--keep", "0.8", "--sample", "20", "--out", "few.json", "--json")
    assert code == 0, err
    found = json.loads(text)
    assert (found["n"], found["sample"], found["keep"]) == (20, 20, 0.8)
    assert 0.8 <= 1 - found["matched_rejected"] < 0.9


def test_a_build_that_names_the_file_is_judged_by_it(
    run: Run, mine: Mine, undisturbed: Built, server: PrefectServer
) -> None:
    # It may be named before it is there.
    file = mine.folder / "bounds.json"
    quality = {"model": "starter", "pretrained": None, "calibration": str(file)}
    named = Mine(mine.folder, {**mine.config, "quality": quality})
    code, _, err = run("calibrate", named.file, "--keep", str(KEEP), "--out", str(file))
    assert code == 0, err
    found = json.loads(file.read_text(encoding="utf-8"))
    bounds = np.float32(found["accept_above"]), np.float32(found["reject_below"])
    # Everything was exported there, with its score: so what these bounds do is known; the model's own do otherwise.
    before = exported(undisturbed.files)
    expected = bands(before, *bounds)
    own = judges(parse_config({**named.config, "quality": {**quality, "calibration": None}}).quality).default
    assert all(expected.values()) and expected != bands(before, own.accept_above, own.reject_below)

    told = build_here(named.config, server.api)
    captions = told["stages"]["03_quality_checked"]["captions"]
    reasons = captions["reasons"]
    assert (captions["kept"], reasons["misaligned"], reasons["borderline"]) == tuple(expected.values())
    kept = {one for one, score in bests(before).items() if score > bounds[0]}
    assert set(bests(exported(export_of(named.config)))) == kept

    code, text, _ = run("health", *named.where)
    assert code == 0 and text.startswith("Health of sample, run 2: ")
    assert re.search(rf"\n  images +– +{before.num_rows} +{len(kept)} +–\n", _section(text, "Since the run before"))


def bands(rows: pa.Table, accept: np.float32, reject: np.float32) -> dict[str, int]:
    """How many exported captions are over one bound, under the other, and between."""
    scores = np.array([one["score"] for said in rows["captions"].to_pylist() for one in said], np.float32)
    over, under = int(np.sum(scores > accept)), int(np.sum(scores < reject))
    return {"accepted": over, "misaligned": under, "borderline": len(scores) - over - under}


def _section(text: str, title: str) -> str:
    """The lines under a title."""
    return text.split(f"\n{title}\n", 1)[1].split("\n\n", 1)[0] + "\n"


IN_VAIN: dict[str, tuple[tuple[str, ...], str]] = {
    "a language that no model knows": (("--language", "ja"), "language 'ja' is known to none of the config's models"),
    "too small a sample": (("--sample", "3"), "sample = 3; expected 20 or more"),
    "more than all of them": (("--keep", "2"), "keep = 2.0; expected a share over 0 and at most 1"),
    "a file where no folder is": (("--out", "nowhere/c.json"), "nowhere/c.json cannot be written"),
    "a folder for a file": (("--out", "."), ". cannot be written"),
}


@pytest.mark.parametrize("case", IN_VAIN)
def test_what_cannot_be_calibrated_is_one_line_and_no_file(run: Run, mine: Mine, case: str) -> None:
    arguments, message = IN_VAIN[case]
    config = mine.file
    store, here = tree(mine.folder), tree(Path())
    assert message in refused(run("calibrate", config, *arguments), at_once=False)
    assert (tree(mine.folder), tree(Path())) == (store, here)


@pytest.mark.parametrize("case", IN_VAIN)
def test_a_mistake_that_can_be_known_is_told_before_a_picture_is_read(run: Run, undisturbed: Built, case: str) -> None:
    arguments, message = IN_VAIN[case]
    config = write_config(Path("config.yaml"), {**undisturbed.config, "store": "./store"})
    before = tree(Path())
    assert message in refused(run("calibrate", str(config), *arguments))
    assert tree(Path()) == before


@pytest.mark.parametrize(
    "arguments",
    [("--set", ITALIAN, "--language", "it"), ("--set", ITALIAN, "--set", "quality.unlabelled_language=it")],
    ids=["named", "by default"],
)
def test_a_language_that_no_caption_is_in(run: Run, mine: Mine, arguments: tuple[str, ...]) -> None:
    config = mine.file
    store, here = tree(mine.folder), tree(Path())
    told = refused(run("calibrate", config, *arguments), at_once=False)
    assert "no source caption of sample is in it; expected 20 or more" in told
    assert (tree(mine.folder), tree(Path())) == (store, here)


def test_health_as_json_is_what_the_export_holds(mine: Mine, undisturbed: Built) -> None:
    done = run_process(command("health", *mine.where, "--json"), environment())
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    rows = exported(undisturbed.files)
    captions = [one for said in rows["captions"].to_pylist() for one in said]
    scores = np.array([one["score"] for one in captions], np.float32)

    figures = told["figures"]
    assert (figures["images"], figures["captions"]) == (rows.num_rows, len(captions))
    assert figures["captions_an_image"] == len(captions) / rows.num_rows
    assert figures["mean_score"] == pytest.approx(float(np.mean(list(bests(rows).values()))), abs=1e-6)
    assert figures["captions_scored"] == len(scores)
    told_scores = [(np.float32(row["low"]), np.float32(row["high"]), row["count"]) for row in told["scores"]]
    assert sum(n for *_, n in told_scores) == len(scores)
    assert all(n == np.sum((scores >= low) & (scores < high)) for low, high, n in told_scores)

    width, height = (rows[name].to_numpy().astype(int) for name in ("width", "height"))
    assert list(distribution(told, "size").values()) == list(sides(width, height).values())
    shapes = Counter[str]()
    for name, n in distribution(told, "aspect_ratio").items():
        shapes[str(name).split()[0]] += n
    wide, tall = np.sum(4 * width >= 5 * height), np.sum(4 * height >= 5 * width)
    assert shapes == {"wide": wide, "tall": tall, "square": rows.num_rows - wide - tall}
    assert distribution(told, "license") == Counter(rows["license"].to_pylist())
    assert distribution(told, "language") == Counter(one["lang"] for one in captions)

    texts = [one["text"] for one in captions]
    for unit, lengths in {
        "characters": [len(text) for text in texts],
        "words": [words(text) for text in texts],
    }.items():
        [row] = [row for row in told["lengths"] if row["unit"] == unit and row["language"] is None]
        assert [row["p5"], row["median"], row["p95"]] == np.percentile(lengths, [5, 50, 95]).tolist()
        assert row["count"] == len(texts)
    stages = {row["stage"]: row for row in told["stages"]}
    assert {name: row["kept"] for name, row in stages.items()} == {
        name: counts["kept"] for name, counts in undisturbed.told["stages"].items()
    }


def distribution(told: dict[str, Any], what: str) -> dict[str | None, int]:
    return {row["value"]: row["count"] for row in told["distributions"] if row["what"] == what}


def sides(width: Any, height: Any) -> dict[str, int]:
    """Pictures by their shorter side, none of which is under 224 px."""
    labels = ("224-255", "256-383", "384-511", "512-767", "768-1023", ">=1024")
    counts, _ = np.histogram(np.minimum(width, height), [224, 256, 384, 512, 768, 1024, np.inf])
    return dict(zip(labels, counts.tolist(), strict=True))


def words(text: str) -> int:
    """Those with a letter or a digit in them, of a text in English."""
    return sum(any(sign.isalnum() for sign in word) for word in text.split())


def test_health_on_a_terminal_has_the_size_buckets(run: Run, mine: Mine, undisturbed: Built) -> None:
    code, text, err = run("health", *mine.where)
    assert (code, err) == (0, "")
    rows = exported(undisturbed.files)
    expected = sides(rows["width"].to_numpy(), rows["height"].to_numpy())
    lines = [line.split() for line in _section(text, "Shorter side").splitlines()]
    shares = {label: f"{n / rows.num_rows:.1%}" for label, n in expected.items()}
    assert lines == [["px", "images", "share"], *([label, str(n), shares[label]] for label, n in expected.items())]
    assert "\nSince the run before\n" not in text and "\x1b" not in text


def test_a_run_under_way_does_not_hide_the_health_of_the_one_before(run: Run, mine: Mine) -> None:
    before = run("health", *mine.where)
    start_run(mine.dataset, parse_config(mine.config))
    assert run("health", *mine.where) == before and before[0] == 0


def test_health_of_what_is_not_there(run: Run, tmp_path: Path) -> None:
    where = ("--store", str(tmp_path / "store"), "--dataset", "set")
    for how in ((), ("--json",)):
        assert "dataset = 'set': no run of it in" in refused(run("health", *where, *how))
    assert not (tmp_path / "store").exists()


def test_health_of_a_dataset_whose_run_has_none_yet(run: Run, mine: Mine, tmp_path: Path) -> None:
    config = parse_config({**mine.config, "store": str(tmp_path / "store"), "dataset": "young"})
    start_run(Dataset(config.store, config.dataset), config)
    before = tree(tmp_path / "store")
    for how in ((), ("--json",)):
        line = refused(run("health", "--store", config.store, "--dataset", "young", *how))
        assert "dataset = 'young': no run of it in" in line and "came as far as its health" in line
    assert tree(tmp_path / "store") == before


def test_a_real_process_refuses_in_one_line(mine: Mine) -> None:
    record = existing_run(mine.dataset)
    path = mine.folder / "store" / "sample" / "runs" / f"{record.number:06d}" / "health.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "scores": [{"count": "x"}]}), encoding="utf-8")
    done = run_process(command("health", *mine.where), environment())
    assert "is damaged" in refused((done.returncode, done.stdout, done.stderr))
    done = run_process(command("calibrate", mine.file, "--language", "ja"), environment())
    assert "known to none" in refused((done.returncode, done.stdout, done.stderr))
