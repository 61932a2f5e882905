"""A worker process that is killed, by the kernel for want of memory say, costs a second try and not the build."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, run

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("times", [1, 9])
def test_what_a_killed_worker_had_is_done_by_another_or_is_left_to_a_rerun(
    times: int, server: PrefectServer, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.integration.dying_worker", str(tmp_path), str(times)]
    done = run(command, environment(**server.environment))
    tries = {file.name: file.read_text() for file in sorted(tmp_path.iterdir())}
    assert list(tries) == [f"{number:05d}" for number in range(12)], "whatever came after it was done, too"
    assert tries["00011"] == "."
    if times == 1:
        assert (done.stdout, tries["00001"]) == (" ".join(tries) + "\n", ".."), done.stderr
    else:
        assert tries["00001"] == "...", done.stderr
        assert done.stdout.startswith(
            "BuildIncomplete: 1 shard lost before it is cut (shard 00001: 00_raw: its process was killed"
        )
        assert "run the same build again" in done.stdout
