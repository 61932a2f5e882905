"""One set of bytes, whatever ran the shards and however they were cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import Built
from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import Mark, environment, run, vlmdata, wait_until
from tests.integration.sample import build_here, config_of, export_of, shards_in, write_config

pytestmark = pytest.mark.integration


def test_the_sample_has_something_of_everything(undisturbed: Built) -> None:
    stages = undisturbed.told["stages"]
    assert stages["01_filtered"]["reasons"].keys() >= {"near_duplicate", "too_small", "truncated", "empty_file"}
    assert stages["02_captioned"]["reasons"] == {"no_caption": 2}
    assert len(shards_in(undisturbed.files)) > 4
    assert undisturbed.told["outcome"] == "completed"


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_other_engines_give_the_same_bytes(
    engine: str, undisturbed: Built, server: PrefectServer, sample: Path, tmp_path: Path
) -> None:
    config = config_of(sample, str(tmp_path / "store"))
    file = write_config(tmp_path / "config.yaml", config)
    mark = Mark()
    done = run(vlmdata("build", str(file), "--engine", engine), environment(**server.environment, **mark.environment))
    assert done.returncode == 0, done.stderr
    assert export_of(config) == undisturbed.files
    wait_until(lambda: not mark.living(), f"nothing of {engine} is left running", patience_s=30)


@pytest.mark.parametrize("shard_size", [7, 1_000])
def test_the_cut_into_shards_leaves_the_bytes_alone(
    shard_size: int, undisturbed: Built, server: PrefectServer, sample: Path, tmp_path: Path
) -> None:
    config = config_of(sample, str(tmp_path / "store"), shard_size=shard_size)
    build_here(config, server.api)
    assert export_of(config) == undisturbed.files
