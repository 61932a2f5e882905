"""What people get for bad input: one line, exit code 2, and nothing written."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmdata import cli
from vlmdata.config_reading import load_config
from vlmdata.runs import COMPLETED

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line in this process: exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def _run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vlmdata", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return _run


def refused(run: Run, *arguments: object) -> str:
    """The one line."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("vlmdata: ")
    assert err.count("\n") == 1
    return err.removeprefix("vlmdata: ").strip()


@pytest.fixture
def source(tmp_path: Path, pictures: Any) -> Path:
    """A folder with one good picture and a config that would build it."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(pictures.png(1))
    return config(tmp_path)


def config(folder: Path, **changes: str) -> Path:
    lines = {
        "dataset": "set",
        "source": "{kind: folder, path: ./pictures}",
        "caption": "{policy: none}",
        "quality": "{model: starter, pretrained: null}",
        **changes,
    }
    file = folder / "config.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()), encoding="utf-8")
    return file


def captions(folder: Path, *rows: Any, name: str = "captions.jsonl") -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / name).write_text(text, encoding="utf-8")
    return config(folder, source=f"{{kind: folder, path: ./pictures, captions: ./{name}}}")


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


MISTAKES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "unknown key": (lambda f: config(f, fliter="{}"), "unknown key 'fliter'; did you mean 'filter'?"),
    "bad value": (lambda f: config(f, shard_size="0"), "shard_size = 0: expected greater than 0"),
    "no such folder": (lambda f: config(f, source="{kind: folder, path: ./nowhere}"), "no such folder"),
    "no picture": (lambda f: config(f, source="{kind: folder, path: ./empty}"), "no picture found"),
    "no caption file": (
        lambda f: config(f, source="{kind: folder, path: ./pictures, captions: ./nowhere.jsonl}"),
        "no such file",
    ),
    "caption file of another kind": (lambda f: captions(f, "x", name="captions.xml"), ".jsonl, .csv or .parquet"),
    "caption file that is no JSON": (lambda f: captions(f, "{"), "captions.jsonl line 1: not JSON"),
    "captions of missing files only": (lambda f: captions(f, {"file": "b.png", "caption": "x"}), "none of the 1 files"),
    "one file twice": (
        lambda f: captions(f, {"file": "a.png", "caption": "x"}, {"file": "a.png", "caption": "y"}),
        "captions.jsonl line 2: 'a.png' already stands in line 1",
    ),
    "two rows with one id": (
        lambda f: config(f, source="{kind: webdataset, path: ./tars}"),
        "two rows with one id",
    ),
    "no tar": (lambda f: config(f, source="{kind: webdataset, path: ./pictures}"), "no .tar file found"),
    "no parquet": (lambda f: config(f, source="{kind: parquet, path: ./pictures}"), "no .parquet file found"),
    "unknown model": (lambda f: config(f, quality="{model: ViT-B-23, pretrained: openai}"), "ViT-B-23"),
    "no model folder": (lambda f: config(f, quality="{model: ./nowhere}"), "nowhere"),
    "bounds upside down": (
        lambda f: config(f, quality="{model: starter, accept_above: 0.1, reject_below: 0.2}"),
        "expected reject_below to be the lower",
    ),
    "key not set": (
        lambda f: config(f, caption="{base_url: https://captions.test/v1, model: m, api_key_env: NO_SUCH_KEY}"),
        "the environment variable NO_SUCH_KEY is not set",
    ),
    "store is a file": (lambda f: config(f, store="./config.yaml"), "cannot be written"),
    "store of another kind": (lambda f: config(f, store="gs://bucket/x"), "expected a folder or s3://bucket/prefix"),
    "not YAML": (lambda f: config(f, filter="{"), "not valid YAML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(run: Run, source: Path, pictures: Any, mistake: str) -> None:
    folder = source.parent
    (folder / "empty").mkdir()
    (folder / "tars").mkdir()
    for name in ("a.tar", "b.tar"):
        with tarfile.open(folder / "tars" / name, "w") as tar:
            member = tarfile.TarInfo("x.png")
            member.size = len(pictures.png(1))
            tar.addfile(member, io.BytesIO(pictures.png(1)))
    write, message = MISTAKES[mistake]
    file = write(folder)
    before = tree(folder)
    assert message in refused(run, "build", file)
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "05_moon"], "--to '05_moon': expected one of 00_raw, 01_filtered"),
        (["--engine", "thread"], "engine = 'thread': expected 'threads', 'processes' or 'ray'"),
        (["--set", "filter.min_sid=3"], "did you mean 'filter.min_side'?"),
        (["--set", "filter"], "expected key=value"),
        (["--store", "gs://x/y"], "expected a folder or s3://bucket/prefix"),
    ],
)
def test_arguments(run: Run, source: Path, arguments: list[str], message: str) -> None:
    before = tree(source.parent)
    assert message in refused(run, "build", source, *arguments)
    assert tree(source.parent) == before


def test_a_config_that_is_not_there(run: Run, tmp_path: Path) -> None:
    assert "`vlmdata init` writes one" in refused(run, "build", tmp_path / "none.yaml")


@pytest.mark.parametrize("store", ["a #b", "2024", "yes", "ünï", "a: b", 'quo"te', "back\\slash", "null"])
def test_a_store_of_any_name_is_that_store(run: Run, source: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    seen: list[Any] = []

    def stop(config: Any, *_: Any) -> Any:
        seen.append(config.store)
        return {"outcome": COMPLETED, "dataset": "set", "run": 1, "stages": {}}

    monkeypatch.setattr(cli, "_build", stop)
    assert run("build", source, "--store", store)[0] == 0
    assert seen == [str(source.parent / store)]


@pytest.mark.parametrize("command", [["status"], ["explain", "x"], ["failures"], ["retry"]])
def test_a_dataset_that_is_not_there(run: Run, tmp_path: Path, command: list[str]) -> None:
    message = refused(run, *command, "--store", tmp_path / "store", "--dataset", "set")
    assert "dataset = 'set': no run of it" in message
    assert not (tmp_path / "store").exists()


def test_a_sample_that_is_not_there(run: Run, story: Any) -> None:
    where = ["--store", story.dataset.store_url, "--dataset", story.dataset.name]
    assert "sample 'nobody': not in run 1" in refused(run, "explain", "nobody", *where)


def test_a_story_as_text_and_as_json(run: Run, story: Any) -> None:
    where = ["--store", story.dataset.store_url, "--dataset", story.dataset.name]
    code, text, _ = run("explain", "twin.png", *where)
    assert (code, "near_duplicate" in text) == (0, True)
    code, text, _ = run("explain", "twin.png", *where, "--json")
    assert (code, json.loads(text)["key"]) == (0, "twin.png")


def test_status_as_text_and_as_json(run: Run, story: Any) -> None:
    where = ["--store", story.dataset.store_url, "--dataset", story.dataset.name]
    code, text, _ = run("status", *where)
    assert (code, "03_quality_checked" in text) == (0, True)
    code, text, _ = run("status", *where, "--json")
    assert (code, next(iter(json.loads(text)["stages"]))) == (0, "00_raw")


def test_init_writes_a_config_that_is_valid_and_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    assert run("init", "new")[0] == 0
    written = load_config(tmp_path / "new/config.yaml")
    assert (written.dataset, written.quality.model) == ("my-set", "ViT-B-32")
    (tmp_path / "new/config.yaml").write_text("mine", encoding="utf-8")
    assert "is there already" in refused(run, "init", "new")
    assert (tmp_path / "new/config.yaml").read_text(encoding="utf-8") == "mine"


def test_init_where_a_file_stands(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot be written" in refused(run, "init", "file")
    assert "cannot be written" in refused(run, "init", "file/below")


def test_the_demo_without_its_sample(run: Run, tmp_path: Path) -> None:
    assert "no captions.jsonl there" in refused(run, "demo", "--sample", tmp_path)


@pytest.mark.parametrize("to", ["04_final", "00_raw"])
def test_an_unchanged_build_loads_no_orchestrator_and_does_nothing(source: Path, to: str) -> None:
    """The newest run says so; here it is put there by hand."""
    script = """
import sys
from vlmdata import cli
from vlmdata.checkpoint import Dataset
from vlmdata.config_reading import load_config
from vlmdata.ingest.listing import list_source
from vlmdata.layout import Stage
from vlmdata.runs import COMPLETED, StageReport, fingerprint, start_run
config = load_config(sys.argv[1])
dataset = Dataset(config.store, config.dataset)
to = Stage(sys.argv[2])
found = fingerprint(dataset, config, list_source(dataset, config), to)
dataset.store.put("whole", b'{"files": []}')
run = start_run(dataset, config)
run.stage_done(StageReport(to))
run.finish(COMPLETED, "", fingerprint=found, whole="whole")
sys.argv = ["vlmdata", "build", sys.argv[1], "--to", to.value]
try:
    cli.main()
finally:
    heavy = {"prefect", "torch", "great_expectations", "open_clip", "transformers"} & set(sys.modules)
    sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", script, str(source), to], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing has changed since, so nothing was done" in done.stdout


def test_a_real_process_says_one_line_and_shows_no_traceback(source: Path) -> None:
    file = config(source.parent, source="{kind: folder, path: ./nowhere}")
    command = [sys.executable, "-m", "vlmdata.cli", "build", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"NO_COLOR": "1"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "no such folder" in done.stderr


def test_a_prefect_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.server import prefect_server
    from vlmdata.errors import ConfigError

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ConfigError, match="no Prefect server answers there"), prefect_server():
        pass


def test_a_dataset_s_name_stays_in_its_store(tmp_path: Path) -> None:
    from vlmdata.cli_arguments import dataset_at
    from vlmdata.errors import ConfigError

    with pytest.raises(ConfigError, match="expected a name"):
        dataset_at(str(tmp_path), "../..")


def test_what_commands_a_terminal_is_written_out() -> None:
    from vlmdata.console import visible

    assert visible("a \x1b[2J b \u202e c") == "a \\x1b[2J b \\u202e c"
    assert visible("ein Kätzchen 猫 👩\u200d🚀") == "ein Kätzchen 猫 👩\u200d🚀"


@pytest.mark.parametrize("command", ["failures", "retry"])
def test_a_class_or_a_stage_that_there_is_not(run: Run, story: Any, command: str) -> None:
    where = ["--store", story.dataset.store_url, "--dataset", story.dataset.name]
    assert "--class 'lost': expected one of transient, permanent, refused, budget" in refused(
        run, command, *where, "--class", "lost"
    )
    assert "--stage 'captions': expected one of 00_raw" in refused(run, command, *where, "--stage", "captions")


def test_where_nothing_failed_there_is_nothing_to_retry(run: Run, story: Any) -> None:
    where = ["--store", story.dataset.store_url, "--dataset", story.dataset.name]
    assert run("failures", *where) == (0, "No failure of that kind in the newest run.\n", "")
    assert run("failures", *where, "--json") == (0, "", "")
    assert run("retry", *where) == (0, "Nothing to retry: no failure of that kind in the newest run.\n", "")


def test_a_retry_changes_how_and_not_what(run: Run, story: Any) -> None:
    where = ["--store", story.dataset.store_url, "--dataset", story.dataset.name]
    assert "would change what comes out" in refused(run, "retry", *where, "--set", "filter.min_side=10")
    assert "did you mean 'caption.max_cost'?" in refused(run, "retry", *where, "--set", "caption.max_costs=3")
    assert run("retry", *where, "--set", "caption.max_requests=3", "--set", "engine=processes")[0] == 0


def test_a_plan_of_a_set_that_asks_for_nothing(run: Run, source: Path) -> None:
    code, text, told = run("plan", source, "--set", "filter.min_side=40")
    assert (code, "pictures that want a caption         0" in text) == (0, True)
    assert "01 filter: 1 samples" in told and "caption again" not in told
    code, text, _ = run("plan", source, "--set", "filter.min_side=40", "--json")
    assert (code, json.loads(text)["requests"]) == (0, 0)
    assert not (source.parent / "store/set/runs").exists()


def test_a_step_that_comes_back_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    from vlmdata import progress
    from vlmdata.console import progress_bars
    from vlmdata.layout import Step

    with progress_bars():
        for text in ("$0.01, 90 tokens", "$0.02, 180 tokens"):
            progress.begin(Step.CAPTIONED, 4)
            progress.note(Step.CAPTIONED, text)
            progress.end(Step.CAPTIONED)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "02 caption: 4 samples ($0.01, 90 tokens)",
        "02 caption again: 4 samples ($0.02, 180 tokens)",
    ]


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        *((None, "unknown"), (0, "$0.00"), (0.00144, "$0.00144"), (0.5, "$0.5"), (1234.5, "$1,234.50")),
        *((0.00005, "$0.00005"), (1.23456e-7, "$0.0000001235"), (0.99996, "$1.00")),
    ],
)
def test_dollars(amount: float | None, shown: str) -> None:
    from vlmdata.console import dollars

    assert dollars(amount) == shown
