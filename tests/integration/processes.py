"""Child processes of a test: started in a group of their own, ended as a group, and counted afterwards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.integration.warm import Forked, is_ours

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120
_MARK = "VLMDATA_TEST_MARK"

Process = subprocess.Popen[bytes] | Forked


def free_port() -> int:
    """A loopback port that nobody listens on, and neither on the one 10,000 above."""
    while True:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port: int = low.getsockname()[1]
            try:
                high.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            return port


def environment(**more: str) -> dict[str, str]:
    """This process's, quiet, with the checkout importable from anywhere."""
    quiet = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "TOKENIZERS_PARALLELISM": "false"}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **quiet, "PYTHONPATH": path, **more}


def vlmdata(*arguments: str) -> list[str]:
    """The command line, as the installed script would run it."""
    return [sys.executable, "-m", "vlmdata.cli", *arguments]


def run(
    command: Sequence[str], env: Mapping[str, str], timeout_s: float = 300, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run to the end; if that takes too long, the whole group goes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with started(command, env, out.fileno(), err.fileno(), cwd) as process:
            code = process.wait(timeout_s)
        said = [file.read().decode() for file in (out, err) if not file.seek(0)]
    return subprocess.CompletedProcess(list(command), code, *said)


@contextmanager
def started(
    command: Sequence[str],
    env: Mapping[str, str],
    stdout: int | None = subprocess.DEVNULL,
    stderr: int | None = subprocess.DEVNULL,
    cwd: Path = ROOT,
) -> Iterator[Process]:
    """A process at the head of a group, which is gone when the block ends; forked if it is one of `warm.OURS`."""
    process = _process(command, env, stdout, stderr, cwd)
    try:
        yield process
    finally:
        stop_group(process)


def _process(
    command: Sequence[str], env: Mapping[str, str], stdout: int | None, stderr: int | None, cwd: Path
) -> Process:
    if not is_ours(command) or subprocess.PIPE in (stdout, stderr):
        return subprocess.Popen(command, env=dict(env), cwd=cwd, stdout=stdout, stderr=stderr, start_new_session=True)
    with open(os.devnull, "wb") as nowhere:
        out, err = (
            own if given is None else nowhere.fileno() if given == subprocess.DEVNULL else given
            for given, own in ((stdout, 1), (stderr, 2))
        )
        return Forked(command, env, cwd, out, err)


def stop_group(process: Process) -> None:
    """Ask the group to end; what has not after 10 s is killed."""
    _signal_group(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    kill_group(process)


def kill_group(process: Process) -> None:
    """SIGKILL for everybody in the group."""
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: Process, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def wait_until(true: Callable[[], bool], what: str, patience_s: float = PATIENCE_S, pause_s: float = 0.1) -> None:
    """Look again and again; TimeoutError says what did not happen."""
    deadline = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience_s} s: {what}")
        time.sleep(pause_s)


class Mark:
    """Marks a process and all that descend from it, whoever their parent is by now."""

    def __init__(self) -> None:
        self._value = uuid.uuid4().hex

    @property
    def environment(self) -> dict[str, str]:
        """To start the first process with."""
        return {_MARK: self._value}

    def living(self) -> list[psutil.Process]:
        """The marked processes that still run."""
        return [process for process in psutil.process_iter() if self._is_on(process)]

    def _is_on(self, process: psutil.Process) -> bool:
        try:
            return bool(process.environ().get(_MARK) == self._value and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False
