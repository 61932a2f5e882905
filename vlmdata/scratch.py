"""A folder for what a library can only write to or read from a disk, and for what is too long for memory."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmdata.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_SAYS = ("os error 28", "No space left on device", "max_temp_directory_size")
"""The same in the words of libraries: of Lance, of DuckDB, and of DuckDB's own limit, a share of the disk."""
_NOT_TO_BE_WRITTEN = {errno.EROFS, errno.EACCES}


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards.

    Raises:
        StoreError: the disk is full, or there is no place for temporary files.
    """
    with temporary_file_errors(), tempfile.TemporaryDirectory(prefix="vlmdata-") as folder:
        yield Path(folder)


@contextmanager
def temporary_file_errors() -> Iterator[None]:
    """Errors of the disk that temporary files lie on, in one line; any other stays what it is.

    Raises:
        StoreError: the disk is full, or there is no place for temporary files.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, StoreError) or not (is_full(error) or _not_to_be_written(error)):
            raise
        raise StoreError(
            f"{_place()}: no space left or not to be written; free space, or set TMPDIR to another folder"
        ) from error


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full, whoever's error it is."""
    return getattr(error, "errno", None) in _FULL or any(words in str(error) for words in _FULL_SAYS)


def _not_to_be_written(error: Exception) -> bool:
    return isinstance(error, OSError) and (error.errno in _NOT_TO_BE_WRITTEN or tempfile.tempdir is None)


def _place() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return "temporary files"
