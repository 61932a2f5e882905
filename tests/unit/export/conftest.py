"""Real pictures with real personal metadata, and checkpoints as the stages before leave them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageCms

from vlmdata.checkpoint import Counts, Dataset, Result, Shard, publish, step_key
from vlmdata.export.pixels import Picture, finished
from vlmdata.export.rows import with_captions
from vlmdata.layout import Step
from vlmdata.schema import CAPTIONS, CHECKED, IMAGES, JUDGED_CAPTIONS, caption_table, filled, sample_ids

SECRET = b"SECRET-GPS-48.8584N"


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    """A picture as a file's bytes."""
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def photo(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    """A smooth picture that differs in all four corners."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)).convert(mode)


def exif(orientation: int | None = None) -> bytes:
    """EXIF with a maker, a GPS position that holds the secret, and an orientation if asked."""
    tags = Image.Exif()
    tags[0x010F] = SECRET.decode()
    if orientation:
        tags[0x0112] = orientation
    tags[0x8825] = {0x001D: SECRET.decode(), 1: "N", 2: (48.0, 51.0, 30.2)}
    return tags.tobytes()


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """One JPEG segment."""
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@cache
def srgb_profile() -> bytes:
    """A real ICC profile; made once, as it tells the second in which it was made."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def talkative_jpeg(**options: Any) -> bytes:
    """A JPEG that tells everything in every way it can."""
    data = encode(photo(), "JPEG", exif=exif(), comment=SECRET, icc_profile=srgb_profile(), **options)
    extra = [
        jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + SECRET),
        jpeg_segment(0xED, b"Photoshop 3.0\08BIM\x04\x04" + SECRET),
        jpeg_segment(0xE2, b"MPF\0" + SECRET),
        jpeg_segment(0xE5, SECRET),
        jpeg_segment(0xE0, b"JFXX\0\x10" + SECRET),
    ]
    return data[:2] + b"".join(extra) + data[2:] + SECRET


def talkative_png(image: Image.Image | None = None) -> bytes:
    """A PNG with text, time, EXIF and bytes behind its end."""
    data = encode(image or photo(), "PNG", exif=exif(), icc_profile=srgb_profile())
    chunks = [
        png_chunk(b"tEXt", b"Author\0" + SECRET),
        png_chunk(b"zTXt", b"Location\0\0" + zlib.compress(SECRET)),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + SECRET),
        png_chunk(b"tIME", struct.pack(">HBBBBB", 2024, 1, 2, 3, 4, 5)),
        png_chunk(b"prVt", SECRET),
    ]
    return data[:33] + b"".join(chunks) + data[33:] + SECRET


def talkative_webp(image: Image.Image | None = None, **options: Any) -> bytes:
    """A WebP with EXIF, XMP, and bytes behind its end."""
    more = {"exif": exif(), "xmp": b"<x:xmpmeta>" + SECRET, "icc_profile": srgb_profile(), **options}
    return encode(image or photo(), "WEBP", **more) + SECRET


def is_silent(picture: Picture) -> bool:
    """No secret in the bytes, nor in anything that Pillow finds in them."""
    with Image.open(io.BytesIO(picture.data)) as image:
        image.load()
        told = {"icc_profile", "exif", "xmp", "XML:com.adobe.xmp", "comment", "photoshop", "mp", "Author", "Location"}
        return SECRET not in picture.data and not image.getexif() and not told.intersection(image.info)


@pytest.fixture
def make() -> Any:
    """The makers above, for tests."""

    class Make:
        secret = SECRET
        encode = staticmethod(encode)
        photo = staticmethod(photo)
        exif = staticmethod(exif)
        jpeg_segment = staticmethod(jpeg_segment)
        png_chunk = staticmethod(png_chunk)
        srgb_profile = staticmethod(srgb_profile)
        is_silent = staticmethod(is_silent)
        jpeg = staticmethod(talkative_jpeg)
        png = staticmethod(talkative_png)
        webp = staticmethod(talkative_webp)

    return Make


def originals(count: int) -> dict[str, bytes]:
    """Source keys and pictures, of three formats, some turned by EXIF; sorted by key."""
    made = {}
    for index in range(count):
        picture = photo(60 + index, 40 + index)
        turn = exif(6 if index % 5 == 4 else 1)
        kind = ("JPEG", "PNG", "WEBP")[index % 3]
        made[f"folder/{index:03d}.{kind.lower()}"] = encode(picture, kind, exif=turn)
    return made


def captions_of(ids: Sequence[str]) -> pa.Table:
    """Two scored captions a sample, the second the better; every fourth in French."""
    parts = []
    for number, which in enumerate(["plain", "better"]):
        count = len(ids)
        langs = ["fr" if int(i, 16) % 4 == 0 else None for i in ids]
        parts.append(caption_table(list(ids), [f"a {which} picture {i[:6]}" for i in ids], langs, ["source"] * count))
        score = pa.array(np.full(count, 0.25 + number / 10), pa.float32())
        extra = {"score": score, "model": "ViT-B-32:abc", "preprocessing": "p", "precision": "fp32"}
        columns = {name: parts[-1][name] for name in CAPTIONS.names}
        parts[-1] = filled(JUDGED_CAPTIONS, count, **columns, **extra, language="en", truncated=False)
    return pa.concat_tables(parts)


def samples_of(pictures: dict[str, bytes]) -> pa.Table:
    """`schema.CHECKED` of these pictures."""
    digests = [sha256(data).hexdigest() for data in pictures.values()]
    keys = list(pictures)
    return filled(
        CHECKED,
        len(keys),
        id=pa.array(sample_ids(digests, keys), pa.string()),
        key=pa.array(keys, pa.string()),
        sha256=pa.array(digests, pa.string()),
        bytes=pa.array([len(data) for data in pictures.values()], pa.int64()),
        source=pa.array(keys, pa.string()),
        license="CC0-1.0",
        phash=pa.array([int(digest[:16], 16) for digest in digests], pa.uint64()),
        best_score=0.35,
    )


def checked_shard(dataset: Dataset, name: str, pictures: dict[str, bytes]) -> Shard:
    """A shard as the stages before the export leave it."""
    samples = samples_of(pictures)
    captions = captions_of(samples["id"].to_pylist())
    images = filled(IMAGES, len(pictures), id=samples["id"], image=pa.array(list(pictures.values()), pa.large_binary()))
    samples_count = Counts(**{"in": len(pictures), "kept": len(pictures)})
    captions_count = Counts(**{"in": captions.num_rows, "kept": captions.num_rows})
    shard = Shard(name, len(pictures))
    for step, tables in {
        Step.RAW: {"images": images},
        Step.CHECKED: {"samples": samples, "captions": captions},
    }.items():
        key = step_key(step, [name, *pictures], {})
        result = Result(tables, samples=samples_count, captions=captions_count)
        shard = shard.at(step, publish(dataset, name, step, key, result))
    return shard


@pytest.fixture
def cut(tmp_path: Path) -> Callable[[dict[str, bytes], int, str], tuple[Dataset, list[Shard]]]:
    """Put pictures into a store of its own, in shards of a size."""

    def _cut(pictures: dict[str, bytes], size: int, store: str = "store") -> tuple[Dataset, list[Shard]]:
        dataset = Dataset(str(tmp_path / store), "stamps")
        items = list(pictures.items())
        pieces = [dict(items[start : start + size]) for start in range(0, len(items), size)]
        return dataset, [checked_shard(dataset, f"{i:05d}", piece) for i, piece in enumerate(pieces)]

    return _cut


@pytest.fixture
def source() -> Callable[[int], dict[str, bytes]]:
    """Makes the pictures of a source."""
    return originals


@pytest.fixture
def exported() -> Callable[[int], tuple[pa.Table, list[Picture]]]:
    """Rows and finished pictures, as a format's writer gets them."""

    def _exported(count: int) -> tuple[pa.Table, list[Picture]]:
        pictures = originals(count)
        samples = samples_of(pictures)
        rows = with_captions(samples, captions_of(samples["id"].to_pylist()))
        return rows, [finished(data, 95) for data in pictures.values()]

    return _exported
