"""The object store: a folder or an S3 bucket, and the only memory there is.

Two verbs write checkpoints: `put` for objects named by their content (writing
one twice is harmless) and `create` for names that one writer may win
(manifests, run records); neither overwrites. `replace` and `delete` are for
what is no checkpoint, such as an export's copy. Nothing is half there: a local
file is linked into place when it is whole, an S3 object appears whole.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Protocol
from uuid import uuid4

import pyarrow as pa
from typing_extensions import Buffer

from vlmdata.errors import StoreError

Names = list[str]

CHECK = ".vlmdata-check"
"""The one object that checking an S3 store leaves in it: empty, the same for ever."""

_BLOCK = 1 << 20
"""Bytes that are fetched of an S3 object at a time, when parts of it are read."""
_DIGEST = "sha256"
"""The metadata of an S3 object that tell its digest; the server checked the bytes when they came."""
_REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403", "Forbidden"}


def open_store(url: str, key: str = "store") -> Store:
    """The store at `url`: a folder, or `s3://bucket/prefix`. Errors name the config's `key`.

    S3's endpoint and keys come from the environment (`AWS_ENDPOINT_URL`,
    `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, or whatever else botocore reads).

    Raises:
        StoreError: the address is neither.
    """
    scheme, separator, rest = url.partition("://")
    if "\0" in url:
        raise StoreError(f"{key} = {url!r}: holds a NUL character, which no path can; correct it")
    if not separator:
        return LocalStore(url, key)
    if scheme == "file":
        return LocalStore(rest, key)
    if scheme == "s3" and rest.strip("/"):
        return S3Store(url, key)
    raise StoreError(f"{key} = {url!r}: expected a folder or s3://bucket/prefix")


class Unnamed(Protocol):
    """An object that has no name yet: it is named by its content, which is still being written."""

    file: IO[bytes]

    def put(self, path: str) -> int:
        """Make it an object of this name, harmless if it is there; its size in bytes."""


class Store:
    """What the stages ask of a store. Paths are relative, with `/`."""

    url: str

    def check(self, *, create: bool = True) -> None:
        """Fail now, in one line, if this store cannot be used.

        Args:
            create: `create` is going to be used, so try for real that one writer wins.

        Raises:
            StoreError: it is not there, cannot be written, or two writers would win one name.
        """
        raise NotImplementedError

    def get(self, path: str) -> bytes:
        """The object's bytes; FileNotFoundError if there is none."""
        raise NotImplementedError

    def view(self, path: str) -> pa.Buffer:
        """The object, to be looked at: where it lies, if that is this machine. FileNotFoundError if there is none."""
        return pa.py_buffer(self.get(path))

    @contextmanager
    def held(self, path: str) -> Iterator[pa.Buffer]:
        """As `view`, for as long as the block runs, and never in memory as a whole."""
        yield self.view(path)

    def open(self, path: str) -> IO[bytes]:
        """The object as a seekable file, read as it is asked for; FileNotFoundError if there is none."""
        raise NotImplementedError

    def digest(self, path: str) -> str | None:
        """The sha256 that the object was given when it was written, told without reading it; None: nobody knows."""
        return None

    def written(self, path: str) -> float:
        """When the object was written, by the store's clock: seconds since 1970. FileNotFoundError if there is none."""
        raise NotImplementedError

    def put(self, path: str, data: Buffer) -> None:
        """Write an object whose name follows from its content; harmless if it is there."""
        raise NotImplementedError

    def writing(self) -> AbstractContextManager[Unnamed]:
        """A file that becomes an object when it is given a name, and is gone otherwise."""
        raise NotImplementedError

    def create(self, path: str, data: Buffer) -> bool:
        """Write an object if the name is free; False if somebody else was first."""
        raise NotImplementedError

    def replace(self, path: str, data: Buffer, *, sha256: str | None = None) -> None:
        """Write an object, whole, whether or not the name is taken; never a checkpoint's.

        Args:
            sha256: Of its bytes; a store that can keeps it beside them, for `digest`.
        """
        raise NotImplementedError

    def delete(self, path: str) -> None:
        """Remove an object; harmless if it is not there."""
        raise NotImplementedError

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        raise NotImplementedError

    def list(self, prefix: str) -> Names:
        """Sorted paths of all objects below a prefix; none if there is no such prefix."""
        raise NotImplementedError

    def children(self, prefix: str) -> Names:
        """Sorted names directly below a prefix, less those that begin with a dot."""
        raise NotImplementedError

    def locate(self, path: str) -> str:
        """The object's absolute path or URL, for people and for other readers."""
        raise NotImplementedError


class LocalStore(Store):
    """A folder on this machine, or on a file system that several share."""

    def __init__(self, root: str, key: str = "store") -> None:
        self.root = Path(root).expanduser().absolute()
        self.url = str(self.root)
        self._key = key

    def check(self, *, create: bool = True) -> None:
        try:
            with self._errors(self.root):
                there = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
                with tempfile.TemporaryFile(dir=there):
                    pass
        except OSError as error:
            # A name may be too long, and in some folders, such as /proc, nothing can be made.
            raise StoreError(
                f"{self._key}: {self.root}: cannot be written ({error.strerror}); choose another {self._key}"
            ) from error
        if create:
            self._check_create(there)

    def _check_create(self, there: Path) -> None:
        """As a manifest is written, but in a folder that is there already, under a name that no list shows."""
        beside, name = LocalStore(str(there), self._key), f".part-check-{uuid4().hex}"
        try:
            beside.create(name, b"")
        finally:
            beside.delete(name)

    def get(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def view(self, path: str) -> pa.Buffer:
        # No object is ever changed under its name, so what is mapped stays what it is.
        return _mapped(str(self.root / path))

    def open(self, path: str) -> IO[bytes]:
        return (self.root / path).open("rb")

    def put(self, path: str, data: Buffer) -> None:
        self.create(path, data)

    def create(self, path: str, data: Buffer) -> bool:
        target = self.root / path
        with self._errors(target):
            if target.exists():
                return False
            with _written(target.parent, data) as temporary:
                return self._link(temporary, target)

    @contextmanager
    def writing(self) -> Iterator[Unnamed]:
        with self._errors(self.root), _part(self.root) as (handle, temporary), os.fdopen(handle, "wb") as file:
            yield _LocalPart(self, file, temporary)

    def _link(self, temporary: str, target: Path) -> bool:
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise StoreError(
                f"{self._key}: {target.parent}: its file system makes no hard links ({error.strerror}), "
                f"by which one of two writers wins; choose another {self._key}"
            ) from error
        return True

    def replace(self, path: str, data: Buffer, *, sha256: str | None = None) -> None:
        target = self.root / path
        with self._errors(target), _written(target.parent, data) as temporary:
            os.replace(temporary, target)

    def delete(self, path: str) -> None:
        target = self.root / path
        with self._errors(target), suppress(NotADirectoryError):
            target.unlink(missing_ok=True)

    def exists(self, path: str) -> bool:
        return (self.root / path).is_file()

    def written(self, path: str) -> float:
        return (self.root / path).stat().st_mtime

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
    def _errors(self, target: Path) -> Iterator[None]:
        try:
            yield
        # FileExistsError: a file stands where a folder should be.
        except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            raise StoreError(
                f"{self._key}: {target}: cannot be written ({error.strerror}); choose another {self._key}"
            ) from error
        except OSError as error:
            if error.errno not in _OF_THE_DISK:
                raise
            raise StoreError(
                f"{self._key}: {target}: {error.strerror}; free space or choose another {self._key}"
            ) from error


def _mapped(path: str) -> pa.Buffer:
    """A file's bytes, where they lie."""
    try:
        with pa.memory_map(path) as file:
            return file.read_buffer()
    except FileNotFoundError:
        raise
    except OSError:
        # Some file systems map nothing, and nobody maps an empty file.
        return pa.py_buffer(Path(path).read_bytes())


_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a file system without hard links says (FAT, some network and FUSE mounts); link(2)."""


@contextmanager
def _written(folder: Path, data: Buffer) -> Iterator[str]:
    """A whole, synced file in `folder` for as long as the block runs, unless that moves it away."""
    with _part(folder) as (handle, temporary):
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            _sync(file)
        yield temporary


@contextmanager
def _part(folder: Path) -> Iterator[tuple[int, str]]:
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".part-")
    try:
        yield handle, temporary
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fchmod(file.fileno(), 0o644)
    os.fsync(file.fileno())


class _LocalPart:
    def __init__(self, store: LocalStore, file: IO[bytes], temporary: str) -> None:
        self.file, self._store, self._temporary = file, store, temporary

    def put(self, path: str) -> int:
        target = self._store.root / path
        _sync(self.file)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._store._link(self._temporary, target)
        return os.fstat(self.file.fileno()).st_size


class S3Store(Store):
    """A bucket, or a prefix in one, of any server that honours `If-None-Match`."""

    def __init__(self, url: str, key: str = "store") -> None:
        self._key = key
        self.url = url.rstrip("/")
        self.root = self.url.removeprefix("s3://")

    @property
    def fs(self) -> Any:
        """The s3fs file system, one a process."""
        return _s3_filesystem()

    def check(self, *, create: bool = True) -> None:
        with self._errors(), self._bucket() as bucket:
            self.fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
        # The second must find the name taken, and so must the first if another run has checked.
        if create and self._create_check() and self._create_check():
            raise StoreError(
                f"{self._key} = {self.url!r}: the server overwrites where it is told not to (If-None-Match), "
                "so two runs would undo each other; choose a server that honours it"
            )

    def _create_check(self) -> bool:
        try:
            return self.create(CHECK, b"")
        except StoreError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            raise StoreError(
                f"{self._key} = {self.url!r}: these credentials may list it but not write to it; "
                "allow them s3:PutObject, or give others"
            ) from error

    def get(self, path: str) -> bytes:
        with self._errors():
            return bytes(self.fs.cat_file(f"{self.root}/{path}"))

    @contextmanager
    def held(self, path: str) -> Iterator[pa.Buffer]:
        with tempfile.TemporaryDirectory(prefix="vlmdata-") as folder:
            file = f"{folder}/object"
            with self._errors():
                self.fs.get_file(f"{self.root}/{path}", file)
            yield _mapped(file)

    def open(self, path: str) -> IO[bytes]:
        with self._errors():
            file: IO[bytes] = self.fs.open(f"{self.root}/{path}", "rb", block_size=_BLOCK)
        return file

    def put(self, path: str, data: Buffer) -> None:
        with self._errors(), self._bucket():
            self.fs.pipe_file(f"{self.root}/{path}", bytes(data))

    @contextmanager
    def writing(self) -> Iterator[Unnamed]:
        with tempfile.NamedTemporaryFile(prefix="vlmdata-") as file:
            yield _S3Part(self, file)

    def replace(self, path: str, data: Buffer, *, sha256: str | None = None) -> None:
        told = {"Metadata": {_DIGEST: sha256}} if sha256 else {}
        with self._errors(), self._bucket():
            self.fs.pipe_file(f"{self.root}/{path}", bytes(data), **told)

    def digest(self, path: str) -> str | None:
        with self._errors():
            head = self.fs.call_s3("head_object", **_bucket_and_key(f"{self.root}/{path}"))
        told: str | None = head["Metadata"].get(_DIGEST)
        return told

    def written(self, path: str) -> float:
        with self._errors():
            head = self.fs.call_s3("head_object", **_bucket_and_key(f"{self.root}/{path}"))
        moment: datetime = head["LastModified"]
        return moment.timestamp()

    def delete(self, path: str) -> None:
        with self._errors(), suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.root}/{path}")

    def create(self, path: str, data: Buffer) -> bool:
        with self._errors(), self._bucket():
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
        names = [name.rstrip("/").rsplit("/", 1)[-1] for name in found]
        return sorted(name for name in names if not name.startswith("."))

    def locate(self, path: str) -> str:
        return f"{self.url}/{path}"

    def link(self, path: str, seconds: int) -> str:
        """An address that whoever has it can read the object by, without keys, for so many seconds."""
        with self._errors():
            return str(self.fs.sign(f"{self.root}/{path}", expiration=seconds))

    @contextmanager
    def _bucket(self) -> Iterator[str]:
        """The bucket's name; that the server finds nothing means that there is no such bucket."""
        bucket = self.root.split("/", 1)[0]
        try:
            yield bucket
        except FileNotFoundError:
            raise StoreError(f"{self._key} = {self.url!r}: there is no bucket {bucket!r}; create it first") from None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except (OSError, BotoCoreError) as error:
            raise StoreError(f"{self._key} = {self.url!r}: {_reason(error)}") from error


class _S3Part:
    def __init__(self, store: S3Store, file: IO[bytes]) -> None:
        self.file, self._store = file, store

    def put(self, path: str) -> int:
        self.file.flush()
        with self._store._errors(), self._store._bucket():
            self._store.fs.put_file(self.file.name, f"{self._store.root}/{path}")
        return os.fstat(self.file.fileno()).st_size


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
