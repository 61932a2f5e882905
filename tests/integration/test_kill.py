"""kill -9 in the middle of any stage: a rerun ends with the bytes of a build that nobody disturbed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import Built
from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import Mark, environment, kill_group, started, vlmdata, wait_until
from tests.integration.sample import build_here, config_of, export_of, write_config
from vlmdata.layout import Step

pytestmark = pytest.mark.integration

OFTEN_S = 0.002


@pytest.mark.parametrize("step", [Step.RAW, Step.FACTS, Step.CAPTIONED, Step.EMBEDDINGS, Step.FINAL])
def test_killed_when_a_step_has_its_first_checkpoint(
    step: Step, undisturbed: Built, server: PrefectServer, sample: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    config = config_of(sample, str(store))
    file = write_config(tmp_path / "config.yaml", config)
    mark = Mark()
    with started(vlmdata("build", str(file)), environment(**server.environment, **mark.environment)) as build:
        _wait_for(store, step, build)
        kill_group(build)
    runs = store / "sample" / "runs"
    assert (runs / "000001" / "start.json").exists() and not (runs / "000001" / "end.json").exists()
    wait_until(lambda: not mark.living(), "what the build had started is gone", patience_s=30)
    before = _manifests(store)

    build_here(config, server.api)

    assert export_of(config) == undisturbed.files
    after = _manifests(store)
    assert {path: after[path] for path in before} == before


def test_nothing_outlives_a_killed_build(sample: Path, tmp_path: Path) -> None:
    """Only the build itself is killed: its decoders and the Prefect server that it had started go by themselves."""
    store = tmp_path / "store"
    file = write_config(tmp_path / "config.yaml", config_of(sample, str(store)))
    mark = Mark()
    env = environment(PREFECT_HOME=str(tmp_path / "prefect"), **mark.environment)
    env.pop("PREFECT_API_URL", None)
    with started(vlmdata("build", str(file)), env) as build:
        _wait_for(store, Step.FACTS, build)
        mine = " ".join(word for process in mark.living() for word in _words(process))
        assert "decode_worker.py" in mine and "prefect.server" in mine
        build.kill()
        build.wait()
        wait_until(lambda: not mark.living(), "decoders and server are gone", patience_s=60)


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _wait_for(store: Path, step: Step, build: subprocess.Popen[bytes]) -> None:
    manifests = store / "sample" / step / "manifests"

    def seen() -> bool:
        if build.poll() is not None:
            raise RuntimeError(f"the build ended with {build.returncode} before {step}")
        return any(manifests.glob("*/*.json"))

    wait_until(seen, f"a checkpoint of {step}", pause_s=OFTEN_S)


def _manifests(store: Path) -> dict[str, tuple[bytes, int]]:
    """Each manifest's content and time of writing, by its path."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in store.rglob("manifests/*/*.json")}
