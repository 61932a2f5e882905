"""Peak memory of a whole build at 40 shards, against one at 4: shards come and go, only global steps may grow.

The pictures are noise, for noise makes large files: if a build held on to its
shards' bytes, their sum (the remark tells it) would stand out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.builds import ROOT, Row, write_config, write_source

FEW, MANY = 4, 40
SHARD_SIZE = 120
"""Enough that in the smaller build, too, every decoder has seen what makes it compile its kernel."""
SIDE = 300
GLOBAL_BYTES = 300
"""What a sample may take in the steps over all shards."""
_EVERY_S = 0.05


def run() -> list[Row]:
    """(name, ratio, bound, remark) of the peaks of the process tree, Prefect's server and decoders included."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pictures = _noise(root / "noise", MANY * SHARD_SIZE)
        peaks = {shards: _peak_of_build(root / str(shards), pictures[: shards * SHARD_SIZE]) for shards in (FEW, MANY)}
        more = sum(picture.stat().st_size for picture in pictures[FEW * SHARD_SIZE :])
    allowed = GLOBAL_BYTES * (MANY - FEW) * SHARD_SIZE
    ratio = (peaks[MANY] - allowed) / peaks[FEW]
    remark = f"{peaks[FEW] >> 20} MB and {peaks[MANY] >> 20} MB, of {more >> 20} MB more pictures"
    return [(f"peak memory, {MANY} shards / {FEW}", ratio, "<= 1.1", remark)]


def _noise(folder: Path, count: int) -> list[Path]:
    """Distinct JPEGs of noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path, quality=95)
    return paths


def _peak_of_build(folder: Path, pictures: list[Path]) -> int:
    """Largest sum of resident bytes of the command and all that it starts, looked at every 50 ms."""
    write_source(folder, pictures)
    config = write_config(folder, "store", SHARD_SIZE)
    command = [sys.executable, "-m", "vlmdata.cli", "build", str(config)]
    with (folder / "said").open("w+b") as said:
        build = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, env=dict(os.environ))
        peak = 0
        while build.poll() is None:
            peak = max(peak, _resident(build.pid))
            time.sleep(_EVERY_S)
        if build.returncode:
            said.seek(0)
            raise RuntimeError(f"vlmdata build ended {build.returncode}: {said.read()[-800:].decode(errors='replace')}")
    return peak


def _resident(pid: int) -> int:
    """Resident bytes of a process and its descendants; those that end meanwhile count as nothing."""
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
