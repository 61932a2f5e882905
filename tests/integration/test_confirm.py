"""A build that looks at pictures whose hashes are close, as people run it: over the flow, and by `vlmdata plan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, run, vlmdata
from tests.integration.sample import write_config
from tests.unit.filtering.test_confirm import BLUE, BLUE_SMALLER, SAND

pytestmark = pytest.mark.integration


def test_a_build_keeps_what_looks_unlike_and_a_plan_counts_it(tmp_path: Path, server: PrefectServer) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, data in (("a.png", BLUE), ("b.png", SAND), ("c.png", BLUE_SMALLER)):
        (pictures / name).write_bytes(data)
    config = {
        "dataset": "scenes",
        "store": str(tmp_path / "store"),
        "source": {"kind": "folder", "path": str(pictures)},
        "filter": {"min_side": 32},
        "dedup": {"confirm": 0.9},
        "caption": {"base_url": "http://127.0.0.1:9/v1", "model": "nobody", "api_key_env": "VLMDATA_TEST_KEY"},
        "quality": {"model": "starter", "pretrained": None},
    }
    file, env = str(write_config(tmp_path / "config.yaml", config)), environment(VLMDATA_TEST_KEY="key")
    built = run(vlmdata("build", file, "--to", "01_filtered"), env)
    assert built.returncode == 0, built.stderr
    where = ("--store", config["store"], "--dataset", "scenes")
    told = json.loads(run(vlmdata("status", *map(str, where), "--json"), env).stdout)["stages"]["01_filtered"]
    assert (told["kept"], told["reasons"]) == (2, {"near_duplicate": 1})
    planned = run(vlmdata("plan", file, "--json"), env)
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["pictures"] == 2
