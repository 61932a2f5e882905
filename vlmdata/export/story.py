"""What an exported sample tells of itself beside its picture: provenance, captions and scores, as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from vlmdata.export.pixels import Picture

_TEXT_COLUMNS = ["id", "key", "sha256", "url", "license", "source"]


def story(row: dict[str, Any], picture: Picture) -> bytes:
    """One row of `rows.ROWS` and its picture, as the bytes of a JSON object.

    `sha256` is that of the source's bytes, `width` and `height` those of the picture beside it.
    """
    told = {
        **{name: row[name] for name in _TEXT_COLUMNS},
        "extra": None if row["extra"] is None else json.loads(row["extra"]),
        "width": picture.width,
        "height": picture.height,
        "phash": None if row["phash"] is None else f"{row['phash']:016x}",
        "captions": [{**caption, "score": _shortest(caption["score"])} for caption in row["captions"]],
    }
    return json.dumps(told, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def _shortest(score: float | None) -> float | None:
    """The number that has the fewest digits of those that are this float32."""
    return None if score is None else float(str(np.float32(score)))
