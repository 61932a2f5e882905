"""How a picture travels: in the request itself, or as a link to the object store that an API fetches it by."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from vlmdata import layout
from vlmdata.captioning.pictures import Picture
from vlmdata.checkpoint import Dataset
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError
from vlmdata.store import S3Store

_SUFFIXES = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}


class InTheRequest:
    """The picture's bytes are part of the request."""

    def carry(self, picture: Picture) -> Picture:
        """The picture as the request refers to it."""
        return picture

    def forget(self, picture: Picture) -> None:
        """Its caption is here, or will not come."""


class ByLink(InTheRequest):
    """What would be sent lies in the store for as long as it is asked about; the link ends with that time."""

    def __init__(self, dataset: Dataset, seconds: int) -> None:
        if not isinstance(dataset.store, S3Store):
            raise ConfigError(
                f"caption.images = 'presigned': store = {dataset.store_url!r} is no bucket that links can lead to;"
                " use s3://bucket/prefix, or caption.images: data"
            )
        self._store = dataset.store
        self._dataset = dataset
        self._seconds = seconds
        self._paths: dict[str, str] = {}

    def carry(self, picture: Picture) -> Picture:
        # A name of its own: two that ask about one picture do not take it from each other.
        path = layout.sent_picture(self._dataset.name, f"{uuid4().hex}.{_SUFFIXES[picture.media_type]}")
        self._store.put(path, picture.data)
        url = self._store.link(path, self._seconds)
        self._paths[url] = path
        return replace(picture, url=url)

    def forget(self, picture: Picture) -> None:
        if picture.url is not None:
            self._store.delete(self._paths.pop(picture.url))


def transport_for(dataset: Dataset, config: CaptionConfig, patience_s: float) -> InTheRequest:
    """How this config's pictures travel.

    Raises:
        ConfigError: links are asked for, and the store has none.
    """
    return ByLink(dataset, int(patience_s) + 1) if config.images == "presigned" else InTheRequest()
