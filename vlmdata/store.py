"""The object store: a folder or an S3 bucket, and the only memory there is.

Two verbs write: `put` for objects named by their content (writing one twice is
harmless) and `create` for names that one writer may win (manifests, run
records). Nothing is overwritten and nothing is half there: a local file is
linked into place when it is whole, an S3 object appears whole.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from typing_extensions import Buffer

from vlmdata.errors import StoreError

Names = list[str]

_REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403", "Forbidden"}


def open_store(url: str) -> Store:
    """The store at `url`: a folder, or `s3://bucket/prefix`.

    S3's endpoint and keys come from the environment (`AWS_ENDPOINT_URL`,
    `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, or whatever else botocore reads).
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalStore(url)
    if scheme == "file":
        return LocalStore(rest)
    if scheme == "s3" and rest.strip("/"):
        return S3Store(url)
    raise StoreError(f"store = {url!r}: expected a folder or s3://bucket/prefix")


class Store:
    """What the stages ask of a store. Paths are relative, with `/`."""

    url: str

    def check(self) -> None:
        """Fail now, in one line, if this store cannot be read and written."""
        raise NotImplementedError

    def get(self, path: str) -> bytes:
        """The object's bytes; FileNotFoundError if there is none."""
        raise NotImplementedError

    def put(self, path: str, data: Buffer) -> None:
        """Write an object whose name follows from its content; harmless if it is there."""
        raise NotImplementedError

    def create(self, path: str, data: Buffer) -> bool:
        """Write an object if the name is free; False if somebody else was first."""
        raise NotImplementedError

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        raise NotImplementedError

    def list(self, prefix: str) -> Names:
        """Sorted paths of all objects below a prefix; none if there is no such prefix."""
        raise NotImplementedError

    def children(self, prefix: str) -> Names:
        """Sorted names directly below a prefix."""
        raise NotImplementedError

    def locate(self, path: str) -> str:
        """The object's absolute path or URL, for people and for other readers."""
        raise NotImplementedError


class LocalStore(Store):
    """A folder on this machine, or on a file system that several share."""

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser().absolute()
        self.url = str(self.root)

    def check(self) -> None:
        there = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        with _local_errors(self.root), tempfile.TemporaryFile(dir=there):
            pass

    def get(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def put(self, path: str, data: Buffer) -> None:
        self.create(path, data)

    def create(self, path: str, data: Buffer) -> bool:
        target = self.root / path
        if target.exists():
            return False
        with _local_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".part-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(temporary, 0o644)
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                os.unlink(temporary)
        return True

    def exists(self, path: str) -> bool:
        return (self.root / path).is_file()

    def list(self, prefix: str) -> Names:
        found = []
        for folder, _, names in os.walk(self.root / prefix):
            base = Path(folder).relative_to(self.root).as_posix()
            found += [f"{base}/{name}" for name in names if not name.startswith(".part-")]
        return sorted(found)

    def children(self, prefix: str) -> Names:
        folder = self.root / prefix
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return sorted(name for name in names if not name.startswith("."))

    def locate(self, path: str) -> str:
        return str(self.root / path)


@contextmanager
def _local_errors(target: Path) -> Iterator[None]:
    try:
        yield
    # FileExistsError: a file stands where a folder should be.
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise StoreError(f"store: {target}: cannot be written ({error.strerror}); choose another --store") from error
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}:
            raise
        raise StoreError(f"store: {target}: {error.strerror}; free space or choose another --store") from error


class S3Store(Store):
    """A bucket, or a prefix in one, of any server that honours `If-None-Match`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.root = self.url.removeprefix("s3://")

    @property
    def fs(self) -> Any:
        """The s3fs file system, one a process."""
        return _s3_filesystem()

    def check(self) -> None:
        bucket = self.root.split("/", 1)[0]
        with self._errors():
            try:
                self.fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
            except FileNotFoundError:
                raise StoreError(f"store = {self.url!r}: there is no bucket {bucket!r}; create it first") from None

    def get(self, path: str) -> bytes:
        with self._errors():
            return bytes(self.fs.cat_file(f"{self.root}/{path}"))

    def put(self, path: str, data: Buffer) -> None:
        with self._errors():
            self.fs.pipe_file(f"{self.root}/{path}", bytes(data))

    def create(self, path: str, data: Buffer) -> bool:
        with self._errors():
            try:
                self.fs.pipe_file(f"{self.root}/{path}", bytes(data), mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if _error_code(error) in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}:
                    return False
                raise
        return True

    def exists(self, path: str) -> bool:
        with self._errors():
            try:
                self.fs.call_s3("head_object", **_bucket_and_key(f"{self.root}/{path}"))
            except FileNotFoundError:
                return False
        return True

    def list(self, prefix: str) -> Names:
        with self._errors():
            self.fs.invalidate_cache()
            found = self.fs.find(f"{self.root}/{prefix}")
        return sorted(name.removeprefix(f"{self.root}/") for name in found)

    def children(self, prefix: str) -> Names:
        folder = f"{self.root}/{prefix}".rstrip("/")
        with self._errors():
            try:
                found = self.fs.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)

    def locate(self, path: str) -> str:
        return f"{self.url}/{path}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except (OSError, BotoCoreError) as error:
            raise StoreError(f"store = {self.url!r}: {_reason(error)}") from error


@lru_cache(maxsize=1)
def _s3_filesystem() -> Any:
    import s3fs

    return s3fs.S3FileSystem(use_listings_cache=False)


def _bucket_and_key(path: str) -> dict[str, str]:
    bucket, _, key = path.partition("/")
    return {"Bucket": bucket, "Key": key}


def _error_code(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _reason(error: BaseException) -> str:
    from botocore.exceptions import EndpointConnectionError, NoCredentialsError

    cause = error if isinstance(error, NoCredentialsError | EndpointConnectionError) else error.__cause__ or error
    if isinstance(cause, NoCredentialsError):
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(cause, EndpointConnectionError):
        return f"no answer ({cause}); set AWS_ENDPOINT_URL to the server's address"
    if _error_code(error) in _REFUSED or isinstance(error, PermissionError):
        return "the server refuses these credentials; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if _error_code(error) == "NoSuchBucket":
        return "there is no such bucket; create it first"
    return " ".join(str(error).split()) or type(error).__name__
