"""Pictures and captions as WebDataset has them: what `vlmdata train` reads."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path


def write_tar(folder: Path, samples: Iterable[tuple[str, bytes, list[str]]]) -> Path:
    """Write one tar of keys, PNG pictures and English captions into a folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for key, picture, captions in samples:
            said = json.dumps({"captions": [{"text": text, "lang": "en"} for text in captions]}).encode()
            for suffix, data in (("png", picture), ("json", said)):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return folder
