"""Child processes of a test: started in a group of their own, ended as a group, and counted afterwards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120
_MARK = "VLMDATA_TEST_MARK"


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


def run(command: Sequence[str], env: Mapping[str, str], timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run to the end; if that takes too long, the whole group goes."""
    with started(command, env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=timeout_s)
    return subprocess.CompletedProcess(list(command), process.returncode, out.decode(), err.decode())


@contextmanager
def started(
    command: Sequence[str],
    env: Mapping[str, str],
    stdout: int | None = subprocess.DEVNULL,
    stderr: int | None = subprocess.DEVNULL,
    cwd: Path = ROOT,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process at the head of a group, which is gone when the block ends."""
    process = subprocess.Popen(command, env=dict(env), cwd=cwd, stdout=stdout, stderr=stderr, start_new_session=True)
    try:
        yield process
    finally:
        stop_group(process)


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the group to end; what has not after 10 s is killed."""
    _signal_group(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for everybody in the group."""
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
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
