"""A Python that has imported the large libraries once; commands of ours are forked off it, each a process of its own.

A build spends 10 s of a processor on imports before it does anything. What is forked here has them already, and is
otherwise what a shell would have started: its own group, environment, folder and exit code, and a kill kills it.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LARGE = ("torch", "open_clip", "great_expectations", "duckdb", "pyarrow.dataset", "s3fs", "httpx", "fastapi", "numba")
LIBRARY = ("captioning.shards", "export.finish", "export.shards", "health.measure", "quality.retrieval", "report.make")
"""All but Prefect, which reads the environment when it is imported, and of ours what does not import it."""

OURS = ("vlmdata.cli", "vlmdata.training", "torch.distributed.run")
ROOT = Path(__file__).resolve().parents[2]


def is_ours(command: Sequence[str]) -> bool:
    """Whether `command` is one that may be forked: `python -c`, or `-m` of a module that needs the large libraries."""
    known = [["-c"], *(["-m", module] for module in OURS)]
    return command[0] == sys.executable and any(list(command[1 : 1 + len(start)]) == start for start in known)


class Forked:
    """As much of `subprocess.Popen` as tests need."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        stdout: int = 1,
        stderr: int = 2,
    ) -> None:
        self.args = list(command)
        self.returncode: int | None = None
        self._line, theirs = socket.socketpair()
        said = json.dumps({"command": self.args, "env": dict(env or os.environ), "cwd": str(cwd)})
        with theirs:
            _mould().sendall(len(said.encode()).to_bytes(4, "big"))
            socket.send_fds(_mould(), [said.encode()], [theirs.fileno(), stdout, stderr])
        self.pid = int.from_bytes(self._told(), "big")

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        if self.returncode is None and select.select([self._line], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or the number of the signal that ended it, negative; TimeoutExpired if it goes on."""
        if self.returncode is None:
            if not select.select([self._line], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To this process alone, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(int.from_bytes(self._told(), "big"))
        self._line.close()

    def _told(self) -> bytes:
        told = self._line.recv(4, socket.MSG_WAITALL)
        if len(told) < 4:
            raise RuntimeError("the process that others are forked off has ended")
        return told


@functools.cache
def _mould() -> socket.socket:
    """The one of this process. It ends when its line is closed, which is when this process ends."""
    ours, theirs = socket.socketpair()
    quiet = {**os.environ, "GX_ANALYTICS_ENABLED": "false", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "tests.integration.warm", str(theirs.fileno())]
    subprocess.Popen(command, env=quiet, cwd=ROOT, pass_fds=[theirs.fileno()], start_new_session=True)
    theirs.close()
    return ours


def main(line: socket.socket) -> dict[str, Any] | None:
    """Fork for whoever asks; what returns something is a fork, and that is what it is to do."""
    for name in (*LARGE, "expectations.gate", *(f"vlmdata.{name}" for name in LIBRARY)):
        __import__(name)
    gc.freeze()
    # Who minds a fork is waited for by nobody.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while length := line.recv(4, socket.MSG_WAITALL):
        said, fds, _, _ = socket.recv_fds(line, int.from_bytes(length, "big"), 3)
        while len(said) < int.from_bytes(length, "big"):
            said += line.recv(1 << 20)
        if not os.fork():
            line.close()
            return _minded(json.loads(said), *fds)
        for fd in fds:
            os.close(fd)
    return None


def _minded(task: dict[str, Any], line: int, stdout: int, stderr: int) -> dict[str, Any]:
    """Fork once more; who stays says how the other one ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        os.write(line, os.waitpid(pid, 0)[1].to_bytes(4, "big"))
        os._exit(0)
    os.setsid()
    os.write(line, os.getpid().to_bytes(4, "big"))
    for fd, place in ((os.open(os.devnull, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, place)
    for fd in (line, stdout, stderr):
        os.close(fd)
    return task


def become(command: Sequence[str], env: Mapping[str, str], cwd: str) -> None:
    """Do what `command` would have done, in this process."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[0] = cwd
    if threads := env.get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))
    _, how, what, *words = command
    sys.argv[:] = [how, *words]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


def ended(task: Mapping[str, Any]) -> int:
    """The exit code of what a fork is to do."""
    try:
        become(**task)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    task = main(socket.socket(fileno=int(sys.argv[1])))
    code = 0
    if task is not None:
        code = ended(task)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    # Python would spend 2 s on taking all of it apart.
    os._exit(code)
