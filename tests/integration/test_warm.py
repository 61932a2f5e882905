"""A forked process is what a shell would have started: folder, environment, group, exit code, and a kill kills it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.integration.processes import environment, kill_group, run, started, vlmdata, wait_until
from tests.integration.warm import Forked

pytestmark = pytest.mark.integration


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-c", code, *words]


def test_it_has_its_own_folder_environment_and_words(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ.get('MINE'), sys.argv); sys.exit(7)"
    done = run(python(code, "a b"), environment(MINE="yes"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (7, f"{tmp_path} yes ['-c', 'a b']\n")
    assert run(python(code), environment()).stdout.split()[1] == "None", "nothing of one is left for the next"


@pytest.mark.parametrize(
    ("code", "ended"), [("pass", 0), ("exit()", 0), ("exit('why')", 1), ("1 / 0", 1), ("import os; os.abort()", -6)]
)
def test_it_ends_as_python_ends(code: str, ended: int) -> None:
    done = run(python(code), environment())
    assert done.returncode == ended
    assert ("ZeroDivisionError" in done.stderr) == ("/" in code) and ("why" in done.stderr) == ("why" in code)


def test_it_leads_a_group_and_is_killed_with_it() -> None:
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    with started(python(f"{child}; time.sleep(60)"), environment()) as process:
        assert isinstance(process, Forked) and process.poll() is None
        assert os.getpgid(process.pid) == os.getsid(process.pid) == process.pid
        kill_group(process)
        assert process.wait() == -9
    wait_until(lambda: not alive(process.pid), "the whole group is gone")


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_prefect_and_threads_are_as_the_environment_says() -> None:
    asked = "import os, sys; assert 'prefect' not in sys.modules; import torch; print(torch.get_num_threads())"
    assert run(python(asked), environment(OMP_NUM_THREADS="1")).stdout == "1\n"


def test_commands_of_ours_are_forked() -> None:
    with started(vlmdata("--help"), environment()) as process:
        assert isinstance(process, Forked) and process.wait(60) == 0
