"""A disk that is full, or nearly so, whenever a test wants it to be."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_BYTES = 4 << 20
PAGE = 4_096
"""Bytes that a file takes at least, on such a disk."""


@dataclass(frozen=True)
class SmallDisk:
    """A file system of its own at `folder`."""

    folder: Path

    def leave(self, pages: int) -> None:
        """Fill it, less so many pages; of what lies there nothing is touched."""
        filler = self.folder / "filler"
        filler.unlink(missing_ok=True)
        free = os.statvfs(self.folder)
        taken = free.f_bavail * free.f_bsize - pages * PAGE
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, taken)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A few MiB of memory, mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_BYTES}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here: that takes root")
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
