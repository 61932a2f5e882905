"""Who wrote a record, so that a request which a dead process left open need not be waited for."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

_UNKNOWN = "?"


def this_writer() -> str:
    """Names this process: where it runs, and its number and start there."""
    return f"{_place()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(writer: str) -> bool:
    """Whether a writer ran where this process runs, and runs no more; False where that cannot be known."""
    place, _, rest = writer.rpartition(":")
    place, _, number = place.rpartition(":")
    if place != _place() or _UNKNOWN in writer or not number.isdecimal():
        return False
    return _started(int(number)) != rest


@cache
def _place() -> str:
    """This boot of this machine, and the namespace that its process numbers are of."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{_UNKNOWN}{socket.gethostname()}"


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; nothing if there is none (a zombie does nothing any more)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]
