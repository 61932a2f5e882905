"""Threads on which torch uses one core each.

A model's work falls into many small batches that do not wait for each other.
One core a batch keeps every core busy without torch's own threads, which
spin while they wait and take the cores from the rest of the machine.
"""

from __future__ import annotations

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor

# glibc's mallopt (malloc.h): below the one, memory is asked of the heap; up to the other, the heap keeps what is freed.
_M_MMAP_THRESHOLD, _LARGEST_OF_HEAP = -3, 32 << 20
_M_TRIM_THRESHOLD, _MOST_KEPT = -1, 256 << 20

_starting = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def one_core_threads() -> ThreadPoolExecutor:
    """The process-wide threads, as many as there are cores; torch elsewhere in the process stays as it was set."""
    global _pool
    with _starting:
        if _pool is None:
            _pool = _started(_cores())
        return _pool


def _cores() -> int:
    """The cores that this process may use, where the system says."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _started(count: int) -> ThreadPoolExecutor:
    import torch

    _keep_memory()
    elsewhere = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix="model", initializer=_use_one_core)
    # A thread starts when it is needed: this needs all of them at once.
    together = threading.Barrier(count)
    for waiting in [pool.submit(together.wait) for _ in range(count)]:
        waiting.result()
    # Setting it in a thread also sets it for threads that are yet to come.
    torch.set_num_threads(elsewhere)
    return pool


def _keep_memory() -> None:
    """A batch frees what the next one takes; given back in between, it costs a tenth of the time in page faults."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_OF_HEAP)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)


def _use_one_core() -> None:
    import torch

    # A thread takes over the process's number when it first asks for it, whatever was set before: so it asks now.
    torch.get_num_threads()
    torch.set_num_threads(1)
