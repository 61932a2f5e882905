"""How pictures travel, as far as no bucket is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmdata.captioning.links import InTheRequest, transport_for
from vlmdata.captioning.pictures import Picture
from vlmdata.checkpoint import Dataset
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError

PICTURE = Picture(b"\xff\xd8", "image/jpeg", 2, 1)


def test_a_picture_in_the_request_is_written_nowhere(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path / "store"), "set")
    transport = transport_for(dataset, CaptionConfig(), 60)
    assert type(transport) is InTheRequest
    assert transport.carry(PICTURE, b"of") is PICTURE
    transport.forget(PICTURE)
    assert dataset.store.list("") == []


def test_a_folder_has_no_links(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path / "store"), "set")
    with pytest.raises(ConfigError, match=r"use s3://bucket/prefix, or caption\.images: data") as caught:
        transport_for(dataset, CaptionConfig(images="presigned"), 60)
    assert "\n" not in str(caught.value) and dataset.store_url in str(caught.value)
