"""The command line: the front door, and the one place of the library that knows the flows."""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from vlmdata.cli_arguments import as_iso, classes_of, dataset_at, done_otherwise, stage_of, stages_of
from vlmdata.errors import BuildIncomplete, ConfigError, DoesNotHold, GateFailed, VlmdataError

app = typer.Typer(
    name="vlmdata",
    help="Turn pictures, with or without captions, into a vision-language training set.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Store = Annotated[str, typer.Option("--store", help="The folder or s3:// URL that holds the dataset.")]
_Name = Annotated[str, typer.Option("--dataset", help="The dataset's name.")]
_Stages = Annotated[list[str] | None, typer.Option("--stage", help="Of this stage only, such as 02_captioned.")]
_Classes = Annotated[
    list[str] | None, typer.Option("--class", help="Of this class only: transient, permanent, refused, budget.")
]


@app.command()
def init(directory: Annotated[Path, typer.Argument(help="Where to write config.yaml.")] = Path(".")) -> None:
    """Write a commented config to start from."""
    from importlib.resources import files

    target = directory / "config.yaml"
    if target.exists():
        raise ConfigError(f"{target}: is there already; give another folder, or edit that one")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(files("vlmdata").joinpath("template.yaml").read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error.strerror}); give another folder") from error
    typer.echo(f"Wrote {target}. Set source.path, then: vlmdata build {target}")


@app.command()
def build(
    config: Annotated[Path, typer.Argument(help="The config file.")],
    store: Annotated[str | None, typer.Option(help="Instead of the config's store.")] = None,
    engine: Annotated[str | None, typer.Option(help="threads, processes or ray.")] = None,
    to: Annotated[str, typer.Option(help="The last stage to make.")] = "04_final",
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, such as filter.min_side=256.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log.")] = False,
) -> None:
    """Build a training set; what is done already is not done again."""
    from vlmdata.config_reading import load_config
    from vlmdata.console import print_funnel

    overrides = list(set_ or [])
    named = (("store", store), ("engine", engine))
    # As JSON, which is YAML: a path that holds " #" or looks like a number stays that path.
    overrides += [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in named if value is not None]
    told = _build(load_config(config, overrides), stage_of(to), verbose)
    print_funnel({**told, "message": None})
    _end(told)


@app.command()
def nightly(
    config: Annotated[Path, typer.Argument(help="The config file.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, such as filter.min_side=256.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log.")] = False,
) -> None:
    """Make the next version of what came since the last, unless another night is under way. For cron, say."""
    from vlmdata.config_reading import load_config
    from vlmdata.console import print_funnel

    def flow(config: Any) -> Any:
        from flows.nightly_ingest import nightly_ingest

        return nightly_ingest(config, return_state=True)

    read = load_config(config, set_ or [])
    told = _in_prefect(read, flow, f"The night of {read.dataset}", verbose)
    print_funnel({**told, "message": None})
    _end(told)


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="The config file.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, such as caption.model=gpt-4o.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what captions will take in requests, tokens, money and time. Filters first; asks nothing."""
    from vlmdata.captioning.plan import plan_captions
    from vlmdata.config_reading import load_config
    from vlmdata.console import print_plan, progress_bars
    from vlmdata.here import filter_here
    from vlmdata.preflight import preflight

    read = load_config(config, set_ or [])
    preflight(read)
    dataset = dataset_at(read.store, read.dataset)
    with progress_bars():
        filtered = filter_here(dataset, read)
    planned = plan_captions(dataset, filtered, read.caption)
    if as_json:
        typer.echo(json.dumps(planned.as_dict(), indent=2))
    else:
        print_plan(planned, read.caption)


@app.command()
def calibrate(
    config: Annotated[Path, typer.Argument(help="The config file: its source, and its quality.model.")],
    language: Annotated[
        str | None, typer.Option(help="Of the captions (BCP 47); by default quality.unlabelled_language.")
    ] = None,
    keep: Annotated[float, typer.Option(help="Share of right captions that is not to be rejected.")] = 0.95,
    sample: Annotated[int, typer.Option(help="Images to draw, at most.")] = 5_000,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("calibration.json"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, such as quality.model=ViT-L-14.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Find the bounds of a model's scores: right captions of the source against shuffled ones."""
    from vlmdata.config_reading import load_config
    from vlmdata.console import print_lines, progress_bars
    from vlmdata.here import with_own_captions_here
    from vlmdata.models.calibration import Calibration
    from vlmdata.preflight import preflight
    from vlmdata.quality.calibrating import calibrate_dataset, calibrated_judge, check_wanted
    from vlmdata.quality.judges import uncalibrated

    read = load_config(config, set_ or [])
    wanted = language or read.quality.unlabelled_language
    calibrated_judge(read.quality, wanted)
    check_wanted(sample, keep)
    Calibration.check_place(out)
    read = read.model_copy(update={"quality": uncalibrated(read.quality)})
    preflight(read)
    dataset = dataset_at(read.store, read.dataset)
    with progress_bars():
        shards = with_own_captions_here(dataset, read)
        report = calibrate_dataset(dataset, shards, read.quality, wanted, sample, keep)
    report.save(out)
    if as_json:
        typer.echo(json.dumps(report.record(), indent=2))
    else:
        print_lines([*report.lines(), f"Wrote {out}. It decides what is auto once quality.calibration names it."])


@app.command()
def health(
    store: _Store,
    dataset: _Name,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show what the newest run kept, by size, length, language, licence and score, and what has moved."""
    from vlmdata.console import print_lines
    from vlmdata.health.drift import drift
    from vlmdata.health.render import as_lines
    from vlmdata.health.saved import newest, previous

    run, found = newest(dataset_at(store, dataset))
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    else:
        before = previous(run, found.stage)
        print_lines(as_lines(found, drift(before, found) if before else []))


@app.command()
def versions(
    store: _Store,
    dataset: _Name,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List what was published, and what each version added, removed and changed."""
    from vlmdata.console import print_versions
    from vlmdata.versions.listing import list_versions

    rows = list_versions(dataset_at(store, dataset))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
    else:
        print_versions(rows)


@app.command()
def diff(
    before: Annotated[int, typer.Argument(help="A version's number.")],
    after: Annotated[int, typer.Argument(help="Another one's.")],
    store: _Store,
    dataset: _Name,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what moved between two versions: samples added, removed and changed, and the drift of their health."""
    from vlmdata.console import print_lines
    from vlmdata.versions.diff import as_lines, compare

    found = compare(dataset_at(store, dataset), before, after)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
    else:
        print_lines(as_lines(found))


@app.command()
def export(
    version: Annotated[int, typer.Argument(help="A version's number.")],
    store: _Store,
    dataset: _Name,
    to: Annotated[str, typer.Option("--to", help="A folder or s3:// URL.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the export, such as export.samples_per_shard=500.")
    ] = None,
) -> None:
    """Export a published version again, as it was or in another form."""
    from vlmdata.console import print_lines, progress_bars
    from vlmdata.versions.again import export_again

    with progress_bars():
        place, samples = export_again(dataset_at(store, dataset), version, to, set_ or [])
    print_lines([f"Version {version}: {samples:,} samples. Export: {place}"])


@app.command()
def decontaminate(
    against: Annotated[str, typer.Option("--against", help="The evaluation set: a folder of pictures, or parquet.")],
    name: Annotated[str, typer.Option("--name", help="What it is called, such as coco-val2017.")],
    out: Annotated[Path, typer.Option(help="The list to write.")] = Path("benchmark.parquet"),
    config: Annotated[
        Path | None, typer.Option("--config", help="A config whose quality.model embeds the pictures as well.")
    ] = None,
    image_column: Annotated[str, typer.Option(help="Of parquet files.")] = "image",
) -> None:
    """List the pictures of an evaluation set, so that no export trains on them."""
    from vlmdata.config_reading import load_config
    from vlmdata.console import print_lines, progress_bars
    from vlmdata.export.selection.make_list import make_list

    quality = load_config(config, []).quality if config else None
    with progress_bars():
        made = make_list(against, name, out, quality, image_column)
    lost = f" {made.unreadable:,} could not be read, and are not on it." if made.unreadable else ""
    how = "hashes and embeddings" if quality else "hashes; with --config their embeddings, too"
    print_lines(
        [
            f"Wrote {out}: {made.pictures:,} pictures of {name}, their {how}.{lost}",
            f"export.decontaminate.lists: [{out}]",
        ]
    )


@app.command()
def verify(
    export: Annotated[str, typer.Argument(metavar="EXPORT", help="The folder or s3:// URL of an export.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Prove that an export is whole: every file is hashed, read back and counted. Needs nothing but the export."""
    from vlmdata.console import print_lines
    from vlmdata.export.verify import verify as look

    proof = look(export)
    if as_json:
        typer.echo(json.dumps(proof.as_dict(), indent=2, ensure_ascii=False))
    else:
        print_lines(proof.as_lines())
    if not proof.holds:
        raise DoesNotHold(f"{proof.place}: {len(proof.wrong):,} things are wrong; export it again")


@app.command()
def forget(
    store: _Store,
    dataset: _Name,
    sample: Annotated[list[str] | None, typer.Option("--sample", help="A sample's id.")] = None,
    url: Annotated[list[str] | None, typer.Option("--url", help="An address, as the source has it.")] = None,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="A domain, and all below it.")] = None,
    sha256: Annotated[list[str] | None, typer.Option("--sha256", help="Of a picture's bytes, 64 hex digits.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Take pictures and all that was made of them out of every stage, version and export, for good, and prove it."""
    from dataclasses import asdict

    from vlmdata.console import print_lines, progress_bars
    from vlmdata.forgetting.forget import as_lines
    from vlmdata.forgetting.forget import forget as carry_out
    from vlmdata.forgetting.who import Asked
    from vlmdata.runs import existing_run

    asked = Asked.of(sample or [], url or [], domain or [], sha256 or [])
    opened = dataset_at(store, dataset)
    existing_run(opened)
    with progress_bars() as bars:
        receipt = carry_out(opened, asked, bars.say)
    if as_json:
        typer.echo(json.dumps(asdict(receipt), indent=2))
    else:
        print_lines(as_lines(receipt))


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="The training's config file.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Instead of a file: starter, clip-finetune-b32 or lit-multilingual.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Instead of the config's data: an export's folder or URL.")] = None,
    out: Annotated[str | None, typer.Option(help="Instead of the config's out: where the model goes.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, such as base_lr=1e-4.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log.")] = False,
) -> None:
    """Train or fine-tune a CLIP-style model on an export; goes on from its newest checkpoint."""
    from vlmdata.console import print_lines
    from vlmdata.training.card import as_lines
    from vlmdata.training.config import TRAIN, load_preset
    from vlmdata.training.train import check

    overrides = [f"{key}={json.dumps(value)}" for key, value in (("data", data), ("out", out)) if value is not None]
    overrides += set_ or []
    if (config is None) == (preset is None):
        raise ConfigError("train: expected a config file, or --preset NAME with --data and --out")
    read = TRAIN.read(config, overrides) if config else load_preset(str(preset), overrides)
    check(read)

    def flow(config: Any) -> Any:
        from flows.train import train as train_flow

        return train_flow(config, return_state=True)

    print_lines(as_lines(_of_state(_state_in_prefect(read, flow, f"Training {read.model}", verbose))))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="An export, such as the raw one: a folder or URL.")],
    b: Annotated[str, typer.Argument(help="Another one, such as the curated one.")],
    out: Annotated[str, typer.Option(help="Where models and the result go.")],
    preset: Annotated[str | None, typer.Option(help="starter, clip-finetune-b32 or lit-multilingual.")] = None,
    config: Annotated[Path | None, typer.Option(help="Instead of a preset: a training's config file.")] = None,
    seeds: Annotated[int, typer.Option(help="How often each is trained.")] = 3,
    held_out: Annotated[str | None, typer.Option(help="The set whose validation split measures; by default B.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, such as epoch_steps=100.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Train the same preset on two versions of a set, with equal compute, and say which made the better models."""
    from dataclasses import asdict

    from vlmdata.console import print_lines, progress_bars
    from vlmdata.training.compare import as_lines
    from vlmdata.training.compare import compare as carry_out
    from vlmdata.training.config import TRAIN, load_preset
    from vlmdata.training.train import check

    if (config is None) == (preset is None):
        raise ConfigError("compare: expected --preset NAME, or --config FILE")
    overrides = [f"{key}={json.dumps(value)}" for key, value in (("data", b), ("out", out))] + (set_ or [])
    read = TRAIN.read(config, overrides) if config else load_preset(str(preset), overrides)
    check(read)
    _quiet_libraries(verbose=False)
    with progress_bars():
        found = carry_out(read, a, b, seeds, held_out)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        print_lines(as_lines(found))


@app.command()
def failures(
    store: _Store,
    dataset: _Name,
    stage: _Stages = None,
    class_: _Classes = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List what failed in the newest run, and why."""
    from vlmdata.console import print_failures
    from vlmdata.failures import failures as ledger

    rows = ledger(dataset_at(store, dataset), stages_of(stage), classes_of(class_))
    if as_json:
        for row in rows.to_pylist():
            typer.echo(json.dumps(row, ensure_ascii=False, default=as_iso))
    else:
        print_failures(rows)


@app.command()
def retry(
    store: _Store,
    dataset: _Name,
    stage: _Stages = None,
    class_: _Classes = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, of how it is done, such as caption.max_cost=20.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log.")] = False,
) -> None:
    """Try again what failed in the newest run, with that run's config; captions get another attempt."""
    from vlmdata.console import print_funnel, print_retry
    from vlmdata.failures import failures as ledger
    from vlmdata.failures import last_stage, may_be_mended, open_again
    from vlmdata.layout import Stage
    from vlmdata.preflight import preflight
    from vlmdata.runs import config_of_newest

    opened = dataset_at(store, dataset)
    stages, classes = stages_of(stage), classes_of(class_)
    config = done_otherwise(config_of_newest(opened), set_ or [])
    failed = ledger(opened, stages, classes)
    tried = may_be_mended(failed)
    print_retry(tried, failed.num_rows)
    if not tried.num_rows:
        return
    preflight(config)
    if Stage.CAPTIONED in stages:
        open_again(opened, classes)
    told = _build(config, last_stage(opened), verbose, even_if_done=True)
    print_funnel({**told, "message": None})
    _end(told)


@app.command()
def status(
    store: _Store,
    dataset: _Name,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show the funnel of the newest run."""
    from vlmdata.console import print_funnel
    from vlmdata.status import status as read_status

    told = read_status(dataset_at(store, dataset))
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        print_funnel(told)


@app.command()
def explain(
    sample_id: Annotated[
        str, typer.Argument(help="A sample's id, the beginning of one, its key in the source, or its address.")
    ],
    store: _Store,
    dataset: _Name,
    version: Annotated[int | None, typer.Option(help="As a published version has it, by number.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Tell one sample's whole story, stage by stage."""
    from vlmdata.explain import explain as tell
    from vlmdata.lineage.terminal import print_story

    story = tell(dataset_at(store, dataset), sample_id, version)
    if as_json:
        typer.echo(json.dumps(story, indent=2, ensure_ascii=False))
    else:
        print_story(story)


@app.command()
def report(
    store: _Store,
    dataset: _Name,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("report.html"),
    training: Annotated[
        Path | None, typer.Option(help="Show what a model learned from it: `out` of a training.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Serve it instead, over all samples.")] = False,
    host: Annotated[str, typer.Option(help="With --serve: address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="With --serve: port to listen on.", min=0, max=65_535)] = 8100,
) -> None:
    """Make a page of the newest run to look at: pictures, captions, reasons, charts. One file; needs no network."""
    from vlmdata.console import print_lines
    from vlmdata.runs import existing_run

    run = existing_run(dataset_at(store, dataset))
    trained = None
    if training:
        from vlmdata.report.training import read_training

        trained = read_training(training, dataset)
    if serve:
        from vlmdata.report.serving import serve as serve_report

        print_lines([f"Report of {dataset}, run {run.number}: reading it; then at http://{host}:{port}/"])
        serve_report(run, host, port, trained)
        return
    from vlmdata.report.make import make_report, write_file

    page = make_report(run, trained)
    write_file(out, page)
    print_lines([f"Wrote {out} ({len(page) / 1e6:.1f} MB): run {run.number} of {dataset}. Open it in a browser."])


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where the demo's store goes.")] = Path("demo"),
    sample: Annotated[Path, typer.Option(help="The sample: pictures/ and captions.jsonl.")] = Path("examples/stamps"),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log.")] = False,
) -> None:
    """Build a training set from the sample that ships with the project, with nothing to set up."""
    from vlmdata.demo import config_of, expected_troubles, next_commands

    config = config_of(sample, directory)
    told = _build(config, stage_of("04_final"), verbose, stand_in_captioner=True)
    from vlmdata.console import print_funnel, print_lines

    print_funnel({**told, "message": None})
    print_lines(expected_troubles(config, sample))
    print_lines(next_commands(config, sample))
    _end(told)


@app.command("caption-server")
def caption_server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)] = 8000,
) -> None:
    """Serve a small OpenAI-compatible captioner: a stand-in for vLLM or a hosted API."""
    from vlmdata.captioning.server import serve

    serve(host, port)


def main() -> None:
    """Run a command; errors of ours become one line and their exit code."""
    try:
        app(standalone_mode=True)
    except VlmdataError as error:
        from vlmdata.console import visible

        print(f"vlmdata: {visible(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("vlmdata: stopped; what is done is safe, run the same command again to go on", file=sys.stderr)
        sys.exit(130)


def run() -> NoReturn:
    """`main`, and then the end at once: Arrow's threads may abort the process if Python takes itself apart first."""
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _build(
    config: Any, to: Any, verbose: bool, *, stand_in_captioner: bool = False, even_if_done: bool = False
) -> dict[str, Any]:
    """Run the flow, unless the newest run was of the same source and settings."""
    from vlmdata.checkpoint import Dataset
    from vlmdata.ingest.listing import list_source
    from vlmdata.preflight import preflight
    from vlmdata.status import if_unchanged

    preflight(config)
    if not even_if_done:
        dataset = Dataset(config.store, config.dataset)
        done = if_unchanged(dataset, config, list_source(dataset, config), to)
        if done:
            return done

    def flow(config: Any) -> Any:
        from flows.build_dataset import build_dataset

        return build_dataset(config, to, return_state=True)

    return _in_prefect(config, flow, f"Building {config.dataset}", verbose, stand_in_captioner=stand_in_captioner)


def _in_prefect(
    config: Any, flow: Callable[[Any], Any], what: str, verbose: bool, *, stand_in_captioner: bool = False
) -> dict[str, Any]:
    """A build's run on this machine, as `vlmdata status` tells it."""
    from vlmdata.checkpoint import Dataset

    state = _state_in_prefect(config, flow, what, verbose, stand_in_captioner=stand_in_captioner)
    return _told(state, Dataset(config.store, config.dataset))


def _state_in_prefect(
    config: Any, flow: Callable[[Any], Any], what: str, verbose: bool, *, stand_in_captioner: bool = False
) -> Any:
    """The state that a flow ends in."""
    from contextlib import ExitStack

    from vlmdata.console import progress_bars

    _quiet_libraries(verbose)
    with ExitStack() as stack:
        bars = stack.enter_context(progress_bars())
        bars.say("Starting Prefect")
        if stand_in_captioner:
            config = stack.enter_context(_captioned_by_stand_in(config))
        from flows.server import prefect_server

        stack.enter_context(prefect_server())
        bars.say(what)
        return flow(config)


def _told(state: Any, dataset: Any) -> dict[str, Any]:
    try:
        return _of_state(state)
    except (GateFailed, BuildIncomplete):
        # What was reached is worth seeing: it says where the samples went.
        from vlmdata.console import print_funnel
        from vlmdata.status import status as read_status

        print_funnel({**read_status(dataset), "message": None})
        raise


def _of_state(state: Any) -> dict[str, Any]:
    """What a flow that ended well returned; else the error that its state stands for."""
    from tasks.job import raise_named

    raise_named(state)
    if not state.is_completed():
        raise VlmdataError(f"the flow ended {state.name}: {state.message}; --verbose shows Prefect's log")
    told: dict[str, Any] = state.result()
    return told


def _captioned_by_stand_in(config: Any) -> Any:
    from vlmdata.demo import captioned_by_stand_in

    return captioned_by_stand_in(config)


def _quiet_libraries(verbose: bool) -> None:
    """Before they are imported: no analytics; logs only if asked for."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _end(told: dict[str, Any]) -> None:
    from vlmdata.runs import IN_PART

    if told["outcome"] == IN_PART:
        raise BuildIncomplete(told["message"])


if __name__ == "__main__":
    run()
