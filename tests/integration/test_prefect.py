"""The deployments on a real Prefect server, run by a real worker: form, funnel, schedule, failures, secrets."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.prefect_server import POOL, PrefectServer, prefect, used_here, worker
from tests.integration.processes import environment, run, wait_until
from tests.integration.sample import config_of, export_of, shards_in
from tests.integration.seaweed import BUCKET, S3
from tests.unit.training.conftest import VIT, model_folder, write_export
from vlmdata.config_reading import parse_config
from vlmdata.layout import Stage, Step
from vlmdata.store import open_store
from vlmdata.training.config import TRAIN

pytestmark = pytest.mark.integration

API_KEY = "sk-not-a-real-key-0f1e2d3c"
PATIENCE_S = 400
PAGES = "https://pages.example/sets"


@dataclass
class Client:
    """Prefect's REST API, as its UI uses it."""

    api: str
    deployments: dict[str, dict[str, Any]] = field(default_factory=dict)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(f"{self.api}/{path}", json=body, timeout=60)

    def found(self, what: str, **body: Any) -> list[dict[str, Any]]:
        answer = self.post(f"{what}/filter", body).raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def trigger(self, deployment: str, parameters: dict[str, Any]) -> httpx.Response:
        state = {"type": "SCHEDULED", "message": "Run from the Prefect UI"}
        body = {"parameters": parameters, "state": state, "enforce_parameter_schema": True}
        return self.post(f"deployments/{self.deployments[deployment]['id']}/create_flow_run", body)

    def ended(self, run_id: str) -> dict[str, Any]:
        """The flow run, once it has ended."""
        seen: dict[str, Any] = {}

        def over() -> bool:
            try:
                seen.update(httpx.get(f"{self.api}/flow_runs/{run_id}", timeout=60).raise_for_status().json())
            except httpx.TimeoutException:
                return False  # a disk that others keep busy holds the server up; PATIENCE_S bounds it
            return seen["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

        wait_until(over, f"flow run {run_id} ends", PATIENCE_S, pause_s=0.5)
        return seen

    def log(self, run_id: str, until: str = "") -> str:
        """Every line of a run's log; it arrives after the run has ended, so `until` is waited for."""
        for _ in range(60):
            if until in (said := self._log(run_id)):
                break
            time.sleep(0.5)
        return said

    def _log(self, run_id: str) -> str:
        lines: list[str] = []
        while len(lines) % 200 == 0:
            page = self.found("logs", logs={"flow_run_id": {"any_": [run_id]}}, limit=200, offset=len(lines))
            if not page:
                break
            lines += [line["message"] for line in page]
        return "\n".join(lines)


@pytest.fixture(scope="module")
def client(server: PrefectServer) -> Client:
    """The API, with everything in deployments/prefect.yaml deployed by the command line."""
    env = environment(**server.environment)
    for command in (
        ["work-pool", "create", POOL, "--type", "process"],
        ["deploy", "--all", "--prefect-file", "deployments/prefect.yaml"],
    ):
        done = run(prefect("--no-prompt", *command), env)
        assert done.returncode == 0, done.stdout + done.stderr
    client = Client(server.api)
    client.deployments = {found["name"]: found for found in client.found("deployments")}
    return client


@pytest.fixture(scope="module")
def config(sample: Path) -> Iterator[dict[str, Any]]:
    """Into S3, with the captions that are missing asked of the stand-in."""
    from vlmdata.captioning.server import running_server

    with running_server() as base_url:
        yield config_of(
            sample,
            f"s3://{BUCKET}/prefect",
            caption={"policy": "missing", "base_url": base_url, "model": "starter", "api_key_env": "TEST_API_KEY"},
        )


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small model, on a small set."""
    folder = tmp_path_factory.mktemp("training")
    return {
        "data": str(write_export(folder / "set")),
        "out": str(folder / "out"),
        "model": str(model_folder(folder / "model", VIT)),
        "epochs": 1,
        "batch_per_device": 8,
        "allow_small_batch": True,
        "validation_share": 0.3,
        "workers": 0,
        "trackers": [],
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def runs(
    client: Client, server: PrefectServer, s3: S3, config: dict[str, Any], training: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """How runs ended: a build as it should be, two with a parameter that cannot work, two nights, and two trainings.

    One of each kind by the worker; what is left here, as each that a worker runs begins with a Python of its own.
    """
    from flows.build_dataset import build_dataset
    from flows.nightly_ingest import nightly_ingest
    from flows.train import train

    wanted = {
        "good": {**config, "report": True},
        "no folder": {**config, "source": {"kind": "folder", "path": "/nowhere/pictures"}},
    }
    with worker(server, environment(**s3.environment, TEST_API_KEY=API_KEY, VLMDATA_PAGES_URL=PAGES)):
        started = {
            name: client.trigger("build-dataset", {"config": parameters, "to": "04_final"}).raise_for_status().json()
            for name, parameters in wanted.items()
        }
        night = {"config": {**config, "store": f"{config['store']}-nightly"}}
        started["night"] = client.trigger("nightly-ingest", night).raise_for_status().json()
        started["training"] = client.trigger("train", {"config": training}).raise_for_status().json()
        ended = {name: client.ended(run["id"]) for name, run in started.items()}
    no_model = {**config, "quality": {"model": "no-such-model", "pretrained": None}}
    no_pair = TRAIN.parse({**training, "validation_share": 1e-9, "out": f"{training['out']}-none"})
    flows = [
        ("no model", build_dataset, parse_config(no_model)),
        ("no news", nightly_ingest, parse_config(config)),
        ("no pair", train, no_pair),
    ]
    for name, flow, parameters in flows:
        with used_here(server.api), pytest.MonkeyPatch.context() as patch:
            patch.setenv("TEST_API_KEY", API_KEY)
            state: Any = flow(parameters, return_state=True)
        ended[name] = client.ended(str(state.state_details.flow_run_id))
    yield ended


@pytest.mark.parametrize(
    ("deployment", "section", "required"),
    [
        ("build-dataset", "BuildConfig", ["dataset", "source"]),
        ("nightly-ingest", "BuildConfig", ["dataset", "source"]),
        ("train", "TrainConfig", ["data", "out", "model"]),
    ],
)
def test_the_form_describes_every_field(client: Client, deployment: str, section: str, required: list[str]) -> None:
    schema = client.deployments[deployment]["parameter_openapi_schema"]
    parts = {"parameters": schema, **schema["definitions"]}
    bare = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, value in part.get("properties", {}).items()
        if not _described(value, schema["definitions"])
    ]
    assert not bare
    assert parts[section]["required"] == required


def _described(value: dict[str, Any], definitions: dict[str, Any]) -> bool:
    """By itself, or by the section that it stands for."""
    section = definitions.get(value.get("$ref", "").rsplit("/", 1)[-1], {})
    return bool(value.get("description") or section.get("description"))


def test_the_nightly_one_has_its_schedule(client: Client) -> None:
    nightly = client.deployments["nightly-ingest"]
    (schedule,) = nightly["schedules"]
    assert schedule["active"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 2 * * *", "UTC")
    assert not client.deployments["build-dataset"]["schedules"]
    assert nightly["global_concurrency_limit"]["limit"] == 1


def test_the_nightly_one_will_run(client: Client) -> None:
    nightly = {"deployment_id": {"any_": [client.deployments["nightly-ingest"]["id"]]}}
    wait_until(lambda: client.found("flow_runs", flow_runs=nightly), "Prefect's scheduler plans a night", 90)
    planned = client.found("flow_runs", flow_runs=nightly)
    assert {run["state_type"] for run in planned} == {"SCHEDULED"}
    assert all(run["expected_start_time"][11:19] == "02:00:00" for run in planned)


def test_a_parameter_of_the_wrong_kind_starts_no_run(client: Client, config: dict[str, Any]) -> None:
    answer = client.trigger("build-dataset", {"config": {**config, "filter": {"min_side": "large"}}})
    assert answer.is_client_error and "min_side" in answer.text


def test_a_run_builds_and_shows_its_funnel(client: Client, runs: dict[str, Any], config: dict[str, Any]) -> None:
    good = runs["good"]
    assert (good["state_type"], good["state_name"]) == ("COMPLETED", "Completed"), good["state"]["message"]
    found = client.found("artifacts", artifacts={"flow_run_id": {"any_": [good["id"]]}})
    shown = {artifact["key"]: artifact for artifact in found}
    funnel = shown["sample-funnel"]
    assert funnel["type"] == "markdown" and all(stage in funnel["data"] for stage in Stage)
    tables = {key for key, artifact in shown.items() if artifact["type"] == "table"}
    assert tables >= {"sample-00-raw", "sample-01-filtered", "sample-02-captioned", "sample-03-quality-checked"}
    assert tables >= {"sample-04-final", "sample-01-filtered-reasons"}
    assert config["store"] in shown["sample-export"]["data"]
    for page in ("sample-gates", "sample-retrieval", "sample-report"):
        assert f"]({PAGES}/sample/runs/000001/" in shown[page]["data"]
    assert open_store(config["store"]).get("sample/runs/000001/report.html").startswith(b"<!doctype html>")
    assert shards_in(export_of(config))


def test_a_training_shows_its_card_and_its_curves(
    client: Client, runs: dict[str, Any], training: dict[str, Any]
) -> None:
    run = runs["training"]
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Completed"), run["state"]["message"]
    assert run["state"]["message"] == f"model in {training['out']}/model"
    told = json.loads((Path(training["out"]) / "run.json").read_text())
    found = client.found("artifacts", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    shown = {artifact["key"]: artifact for artifact in found}
    card = shown[f"training-{told['run']}"]["data"]
    facts = (told["config_hash"], told["git_commit"], told["data"]["manifest_hash"], told["libraries"]["torch"])
    assert all(fact in card for fact in facts)
    assert "effective batch 8 (8 per device" in card and "image → text" in card and "text → image" in card
    curves = shown[f"training-{told['run']}-curves"]
    assert curves["type"] == "image"
    picture = b64decode(curves["data"].removeprefix("data:image/png;base64,"))
    assert picture == (Path(training["out"]) / "curves.png").read_bytes()


def test_a_training_that_cannot_work_says_why(runs: dict[str, Any]) -> None:
    run = runs["no pair"]
    assert (run["state_type"], run["state_name"]) == ("FAILED", "SourceError")
    assert "no pair in the validation split of" in run["state"]["message"]
    assert run["state"]["message"].endswith("give more data, or a larger validation_share")


def test_nights(client: Client, runs: dict[str, Any], config: dict[str, Any]) -> None:
    from vlmdata.checkpoint import Dataset
    from vlmdata.versions.version import numbers, read_version

    assert [(runs[name]["state_type"], runs[name]["state_name"]) for name in ("night", "no news")] == [
        ("COMPLETED", "Completed"),
        ("COMPLETED", "NothingNew"),
    ]
    assert runs["night"]["name"] == "nightly-sample"
    for store in (config["store"], f"{config['store']}-nightly"):
        assert numbers(Dataset(store, config["dataset"])) == [1]
    published = Dataset(f"{config['store']}-nightly", config["dataset"])
    captions = [
        row
        for shard in read_version(published, 1).shards
        for row in published.read(shard, Step.CAPTIONED, "captions").to_pylist()
    ]
    asked_for = [row for row in captions if row["origin"].startswith("model:starter|")]
    assert len(asked_for) == 2 < len(captions), "the captions that were missing, and no others"
    assert all(row["text"] for row in asked_for)


def test_captions_came_from_the_endpoint(runs: dict[str, Any], config: dict[str, Any]) -> None:
    from vlmdata.checkpoint import Dataset
    from vlmdata.status import status

    stages = status(Dataset(config["store"], config["dataset"]))["stages"]
    assert stages["02_captioned"]["kept"] == stages["02_captioned"]["in"] == stages["01_filtered"]["kept"]
    assert stages["02_captioned"]["captions"]["kept"] == stages["01_filtered"]["captions"]["kept"] + 2


@pytest.mark.parametrize(
    ("run", "name", "told"),
    [("no folder", "SourceError", "/nowhere/pictures"), ("no model", "ConfigError", "no-such-model")],
)
def test_a_mistake_ends_the_run_with_its_name(run: str, name: str, told: str, runs: dict[str, Any]) -> None:
    failed = runs[run]
    assert (failed["state_type"], failed["state_name"]) == ("FAILED", name)
    assert told in failed["state"]["message"] and "\n" not in failed["state"]["message"]


def test_a_mistake_is_no_traceback_in_the_log(client: Client, runs: dict[str, Any]) -> None:
    log = client.log(runs["no folder"]["id"], until="SourceError")
    assert "SourceError" in log and "Traceback" not in log


def test_secrets_reach_neither_prefect_nor_the_store(
    server: PrefectServer, s3: S3, runs: dict[str, Any], config: dict[str, Any]
) -> None:
    store = open_store(config["store"])
    records = [store.get(path) for path in store.list("sample") if path.endswith(".json")]
    kept = [file.read_bytes() for file in server.home.rglob("*") if file.is_file()]
    assert records and any(b"sample-funnel" in data for data in kept)
    for secret in (API_KEY, s3.secret):
        assert not [data for data in [*records, *kept] if secret.encode() in data]
