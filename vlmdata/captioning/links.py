"""How a picture travels: in the request itself, or as a link to the object store that an API fetches it by.

<dataset>/02_captioned/sent/<moment its link ends, Unix seconds>-<whose>-<sha256 of its original><random>.<ext>
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from typing import Any
from uuid import uuid4

from vlmdata import layout
from vlmdata.captioning.pictures import Picture
from vlmdata.checkpoint import Dataset
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError, StoreError
from vlmdata.store import S3Store, Store

_SUFFIXES = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
_BY_LINK = "presigned"
_EACH = "each"
"""Whose pictures are forgotten one by one."""
_CLOCKS_DIFFER_S = 300
_log = logging.getLogger("vlmdata")


class InTheRequest:
    """The picture's bytes are part of the request."""

    def carry(self, picture: Picture, original: bytes) -> Picture:
        """The picture, which was made of `original`, as the request refers to it."""
        return picture

    def forget(self, picture: Picture) -> None:
        """Its caption is here, or will not come."""

    def of_batch(self, token: str) -> InTheRequest:
        """The same for the pictures of one batch, which outlive the process that sends them."""
        return self

    def forget_all(self) -> None:
        """Forget a batch's pictures, whichever process sent them."""


class ByLink(InTheRequest):
    """What would be sent lies in the store for as long as it is asked about; the link ends with that time."""

    def __init__(self, dataset: Dataset, seconds: int, whose: str = _EACH) -> None:
        self._store = _bucket_of(dataset.store)
        self._dataset = dataset
        self._seconds = seconds
        self._whose = whose
        self._paths: dict[str, str] = {}

    def carry(self, picture: Picture, original: bytes) -> Picture:
        """The picture with a link; its object has a name of its own, so that no other asker takes it away."""
        ends = int(time.time()) + self._seconds
        name = layout.sent_name(ends, self._whose, sha256(original).hexdigest(), uuid4().hex)
        path = layout.sent_picture(self._dataset.name, f"{name}.{_SUFFIXES[picture.media_type]}")
        self._store.put(path, picture.data)
        url = self._link(path, picture.media_type)
        self._paths[url] = path
        return replace(picture, url=url)

    def forget(self, picture: Picture) -> None:
        path = self._paths.pop(picture.url or "", None)
        if path is not None:
            self._delete([path])

    def of_batch(self, token: str) -> ByLink:
        return ByLink(self._dataset, self._seconds, token)

    def forget_all(self) -> None:
        self._delete([path for path, _, whose in self._sent() if whose == self._whose])

    def forget_ended(self) -> None:
        """Forget what runs that were killed left: links to it lead nowhere any more."""
        now = time.time()
        self._delete([path for path, ends, _ in self._sent() if ends + _CLOCKS_DIFFER_S < now])

    def _link(self, path: str, media_type: str) -> str:
        """A link that is answered with the picture's media type, which the object itself does not have."""
        bucket, _, key = f"{self._store.root}/{path}".partition("/")
        named = {"Bucket": bucket, "Key": key, "ResponseContentType": media_type}
        return str(_signer().generate_presigned_url("get_object", Params=named, ExpiresIn=self._seconds))

    def _sent(self) -> list[tuple[str, int, str]]:
        """Path, end of its link, and whose, of every picture that lies there now."""
        folder = layout.sent_picture(self._dataset.name, "").rstrip("/")
        names = [name.split("-") for name in self._store.children(folder)]
        return [
            (layout.sent_picture(self._dataset.name, "-".join(parts)), int(parts[0]), parts[1])
            for parts in names
            if len(parts) == 3 and parts[0].isdecimal()
        ]

    def _delete(self, paths: list[str]) -> None:
        try:
            for path in paths:
                self._store.delete(path)
        except StoreError as error:
            # No caption is lost for it: the link ends, and a later run deletes what it led to.
            _log.warning("a picture that was sent by link stays for now: %s", error)


@lru_cache(maxsize=1)
def _signer() -> Any:
    """Signs as of version 4: what s3fs asks for by itself is version 2, which newer regions refuse."""
    import botocore.session
    from botocore.config import Config

    return botocore.session.get_session().create_client("s3", config=Config(signature_version="s3v4"))


def check_images(store: Store, config: CaptionConfig) -> None:
    """See to it that pictures can travel as this config says; touches nothing.

    Raises:
        ConfigError: links are asked for, and the store has none.
    """
    if config.images == _BY_LINK:
        _bucket_of(store)


def _bucket_of(store: Store) -> S3Store:
    if not isinstance(store, S3Store):
        raise ConfigError(
            f"caption.images = 'presigned': store = {store.url!r} is no bucket that links can lead to;"
            " use s3://bucket/prefix, or caption.images: data"
        )
    return store


def transport_for(dataset: Dataset, config: CaptionConfig, patience_s: float) -> InTheRequest:
    """How this config's pictures travel; what killed runs left is swept first.

    Raises:
        ConfigError: links are asked for, and the store has none.
    """
    if config.images != _BY_LINK:
        return InTheRequest()
    transport = ByLink(dataset, int(patience_s) + 1)
    transport.forget_ended()
    return transport
