"""The flow, against the same library functions in a plain loop: one shard after the other, gates included.

Each side is a fresh process from its first import to its last record, so
imports count on both. The Prefect server runs already and counts on neither.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.builds import Row, parsed, run_in_a_loop, seconds_of, write_config, write_source
from benchmarks.photos import photo_files

PHOTOS = 2_000
SHARD_SIZE = 500
PAIRS = 3
SIDES = ("loop", "flow")


def run() -> list[Row]:
    """(name, ratio, bound, remark) of the flow's time over the loop's."""
    from flows.server import prefect_server

    files = photo_files(PHOTOS)
    taken: dict[str, list[float]] = {side: [] for side in SIDES}
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, prefect_server():
        write_source(Path(folder), files)
        for pair in range(PAIRS):
            for side in SIDES if pair % 2 else reversed(SIDES):
                config = write_config(Path(folder), f"{side}-{pair}", SHARD_SIZE)
                seconds, said = seconds_of("-m", "benchmarks.bench_flow", side, str(config))
                taken[side].append(seconds)
                told[side] = json.loads(said.splitlines()[-1])
    if told["flow"] != told["loop"]:
        raise RuntimeError(f"flow and loop disagree: {told}")
    ratios = [flow / loop for flow, loop in zip(taken["flow"], taken["loop"], strict=True)]
    halves = ", ".join(f"{side} {statistics.median(times):.1f} s" for side, times in taken.items())
    kept = told["flow"]["04_final"]["kept"]
    remark = f"{halves}; {PHOTOS} images in {PHOTOS // SHARD_SIZE} shards, {kept} exported; medians of {PAIRS} pairs"
    return [("flow / plain loop", statistics.median(ratios), "<= 1.10", remark)]


def _one_side(side: str, config: Path) -> None:
    """Build, and print the funnel as one line of JSON."""
    if side == "flow":
        from flows.build_dataset import build_dataset

        told = build_dataset(parsed(config))
    else:
        told = run_in_a_loop(parsed(config))
    if told is None:
        raise RuntimeError(f"the {side} ended without a result")
    print(json.dumps({name: {"in": row["in"], "kept": row["kept"]} for name, row in told["stages"].items()}))


if __name__ == "__main__":
    _one_side(sys.argv[1], Path(sys.argv[2]))
