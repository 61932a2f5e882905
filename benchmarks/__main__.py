"""`python -m benchmarks [names]`: run the comparisons and print one table.

Names are those of the modules without `bench_`, as `NAMES` has them. Bounds are
judged, not enforced: the exit code is 0 unless a benchmark could not run.
"""

from __future__ import annotations

import importlib
import operator
import os
import platform
import sys
import traceback
from collections.abc import Sequence

from benchmarks.builds import ROOT, Row

NAMES = (
    *("download", "filter", "phash", "near_duplicates", "drop", "night", "collisions", "confirm"),
    *("export", "resize", "report", "flow", "rerun", "list", "memory"),
    *("captions", "scoring", "gates", "faults", "language", "training"),
)
_HOLDS = {">=": operator.ge, "<=": operator.le, "=": operator.eq}
_HEAD = ("name", "measured", "bound", "verdict", "remark")


def main(asked: Sequence[str]) -> int:
    """Run what is asked for, or all; returns the exit code."""
    unknown = sorted(set(asked) - set(NAMES))
    if unknown:
        print(f"benchmarks: {', '.join(unknown)}: no such benchmark; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    print(machine(), flush=True)
    rows: list[Row] = []
    lost = []
    for name in asked or NAMES:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        try:
            rows += importlib.import_module(f"benchmarks.bench_{name}").run()
        except (Exception, SystemExit) as error:  # whatever it was, the others are still worth running
            if not isinstance(error, SystemExit):
                traceback.print_exc()
            lost.append(f"{name} could not run: {error}")
    print(table(rows))
    for line in lost:
        print(line, file=sys.stderr)
    return 1 if lost else 0


def machine() -> str:
    """Cores, load, Python and torch's threads: ratios are of this machine."""
    import torch

    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    cores = f"{os.cpu_count()} cores (load {load})"
    return f"{cores}, {platform.machine()}, Python {platform.python_version()}, torch {torch.get_num_threads()} threads"


def table(rows: Sequence[Row]) -> str:
    """Rows with their verdicts, in columns."""
    cells = [_HEAD]
    cells += [(name, f"{value:.2f}", bound or "-", verdict(value, bound), said) for name, value, bound, said in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD) - 1)]
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        lines.append("  ".join([*padded, row[-1]]))
    return "\n".join(lines)


def verdict(value: float, bound: str) -> str:
    """Whether a measured value keeps to a bound such as ">= 0.6"."""
    if not bound:
        return "-"
    sign, limit = bound.split()
    return "met" if _HOLDS[sign](value, float(limit)) else "NOT met"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
