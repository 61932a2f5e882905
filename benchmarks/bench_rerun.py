"""A second build with nothing changed: how long it takes, and how many pictures it decodes.

Decoding is counted where it happens: Python's audit event of every process
that is started tells of decoders, and the library's progress tells of pictures
that were measured, embedded or finished for export.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.builds import Row, parsed, seconds_of, write_config, write_source
from benchmarks.photos import photo_files

PHOTOS = 200
SHARD_SIZE = 50


def run() -> list[Row]:
    """(name, value, bound, remark): pictures decoded by the command, by the flow itself, and both their seconds."""
    with tempfile.TemporaryDirectory() as folder:
        write_source(Path(folder), photo_files(PHOTOS))
        config = write_config(Path(folder), "store", SHARD_SIZE)
        first, counted = _build("command", config)
        if counted["pictures"] < PHOTOS or not counted["decoders"]:
            raise RuntimeError(f"the first build decoded nothing, so counting does not work: {counted}")
        rows: list[Row] = []
        for way, name in (("command", "vlmdata build again"), ("flow", "all tasks of the flow again")):
            seconds, counted = _build(way, config)
            remark = f"{PHOTOS} images; {counted['decoders']} decoders started"
            rows.append((f"{name}: pictures decoded", float(counted["pictures"] + counted["decoders"]), "= 0", remark))
            rows.append((f"{name}: time / first build", seconds / first, "", f"{seconds:.1f} s, first {first:.1f} s"))
    return rows


def _build(way: str, config: Path) -> tuple[float, dict[str, int]]:
    """Seconds of a whole process, a Prefect server of its own included if it starts one."""
    seconds, said = seconds_of("-m", "benchmarks.bench_rerun", way, str(config))
    counted: dict[str, int] = json.loads(said.splitlines()[-1])
    return seconds, counted


def _counted_build(way: str, config: Path) -> None:
    """Build, and print what was decoded as one line of JSON."""
    from vlmdata import progress
    from vlmdata.layout import Step

    counted = {"pictures": 0, "decoders": 0}

    class Decoding(progress.Listener):
        def advance(self, step: str, samples: int) -> None:
            if step in {Step.FACTS, Step.SCORES, Step.FINAL}:
                counted["pictures"] += samples

    def started(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and "decode_worker" in str(arguments[1]):
            counted["decoders"] += 1

    sys.addaudithook(started)
    with progress.listening(Decoding()):
        _by_command(config) if way == "command" else _by_flow(config)
    print(json.dumps(counted))


def _by_command(config: Path) -> None:
    from vlmdata.cli import app

    app(["build", str(config)], standalone_mode=False)


def _by_flow(config: Path) -> None:
    """Past the command's own look at the last run: every task looks for its checkpoint."""
    from flows.server import prefect_server

    with prefect_server():
        from flows.build_dataset import build_dataset

        build_dataset(parsed(config))


if __name__ == "__main__":
    _counted_build(sys.argv[1], Path(sys.argv[2]))
