"""A folder for what a library can only write to or read from a disk, and for what is too long for memory."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmdata.errors import StoreError

_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards.

    Raises:
        StoreError: the disk is full, or there is no place for temporary files.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="vlmdata-") as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno not in _OF_THE_DISK and "os error 28" not in str(error):
            raise
        raise StoreError(
            f"{tempfile.gettempdir()}: no space left or not to be written; free space, or set TMPDIR to another folder"
        ) from error
