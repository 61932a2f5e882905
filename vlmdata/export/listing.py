"""MANIFEST.json of an export as a stranger may have written it: read, and believed only where it can be true."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator

from vlmdata.errors import BuildIncomplete, UserError
from vlmdata.export.formats import FORMATS
from vlmdata.export.names import CARD, MANIFEST, folder, is_export, is_ours, pictures_beside
from vlmdata.store import Store


def _ours(path: str) -> str:
    if not is_ours(path):
        raise ValueError("the path of a file of an export")
    return path


def _known(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"one of {', '.join(FORMATS)}")
    return name


def _export(key: str) -> str:
    if not is_export(key):
        raise ValueError("the name of an export")
    return key


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class Beside(_Told):
    """Files beside one that stands for a shard."""

    files: NonNegativeInt
    bytes: NonNegativeInt


class Listed(_Told):
    """A file of an export; an index has no samples of its own."""

    path: Annotated[str, AfterValidator(_ours)]
    format: Annotated[str, AfterValidator(_known)]
    bytes: NonNegativeInt
    sha256: str
    samples: NonNegativeInt | None = None
    captions: NonNegativeInt | None = None
    beside: Beside | None = None
    split: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")] | None = None
    export: Annotated[str, AfterValidator(_export)] | None = None
    """Whose folder it lies in, if not this one's."""

    @model_validator(mode="after")
    def _in_its_folder(self) -> Self:
        if not self.path.startswith(f"{self.folder}/"):
            raise ValueError(f"a path below {self.folder}")
        return self

    @property
    def folder(self) -> str:
        """Where its format's files lie, below the export's folder."""
        return folder(self.format, self.split)

    @property
    def name(self) -> str:
        """Its path below that folder."""
        return self.path.removeprefix(f"{self.folder}/")

    @property
    def pictures(self) -> str:
        """The folder of the pictures that belong to it, if they lie in one."""
        return pictures_beside(self.model_dump())


class _Settings(_Told):
    formats: tuple[Annotated[str, AfterValidator(_known)], ...] = Field(min_length=1)


class Listing(_Told):
    """What MANIFEST.json says of an export."""

    dataset: str
    export: Annotated[str, AfterValidator(_export)]
    complete: bool
    settings: _Settings
    samples: NonNegativeInt
    captions: NonNegativeInt
    files: tuple[Listed, ...]
    indexes: tuple[Listed, ...] = ()
    earlier: tuple[Listed, ...] = ()
    about: tuple[Annotated[str, AfterValidator(_ours)], ...] = (CARD,)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats it was written in."""
        return self.settings.formats


class _State(_Told):
    complete: bool = True


def read_listing(store: Store) -> Listing:
    """MANIFEST.json of the export that a store's root is.

    Raises:
        UserError: there is none, or it is no export's.
        BuildIncomplete: whoever wrote it was interrupted.
    """
    try:
        data = store.get(MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{store.url}: holds no {MANIFEST}; expected the folder or URL of an export") from None
    except OSError as error:
        raise UserError(f"{store.locate(MANIFEST)}: cannot be read ({error.strerror}); let it be read") from error
    try:
        if not _State.model_validate_json(data).complete:
            raise BuildIncomplete(f"{store.url}: an export to it was interrupted; run that again, and it goes on")
        return Listing.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(
            f"{store.locate(MANIFEST)}: is no manifest of an export that this version knows ({where}: {said})"
        ) from None
