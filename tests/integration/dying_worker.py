"""A flow on the processes engine, of which a worker is killed: `python -m tests.integration.dying_worker FOLDER N`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from prefect import flow, task

from flows.engine import Engine
from tasks.job import SHARD, Job, named_failures
from vlmdata.checkpoint import Shard
from vlmdata.config_reading import parse_config
from vlmdata.errors import VlmdataError
from vlmdata.layout import Step

SHARDS = [Shard(f"{number:05d}", 10) for number in range(12)]


@task(**{**SHARD, "retry_delay_seconds": 0})
@named_failures
def die(shard: Shard, job: Job, folder: str, times: int) -> Shard:
    """Leave a byte for each try; the second shard's process is killed at its first `times` tries."""
    tried = Path(folder) / shard.name
    with tried.open("ab") as file:
        file.write(b".")
    if shard == SHARDS[1] and tried.stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return shard


@flow
def whole(folder: str, times: int) -> list[str]:
    """The names of the shards that were done."""
    config: dict[str, Any] = {"dataset": "set", "engine": "processes", "source": {"kind": "folder", "path": "/p"}}
    with Engine(Job(parse_config(config), 1)) as engine:
        found = engine.each(die, SHARDS, Step.RAW, folder=folder, times=times)
        engine.require_all("it is cut")
        return [shard.name for shard in found]


if __name__ == "__main__":
    try:
        sys.stdout.write(" ".join(whole(sys.argv[1], int(sys.argv[2]))) + "\n")
    except VlmdataError as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
