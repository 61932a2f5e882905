"""What a card says of pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from vlmdata.export.tallies import PASSED_THROUGH, Tallies

_LEAVES = (
    "Every picture is upright, opaque and in sRGB, without a colour profile or other metadata. One that needed no "
    "change has its source's own compressed stream; any other was encoded once, for one or more of these reasons."
)
FATES: dict[str, str] = {
    PASSED_THROUGH: "none: the source's own compressed stream",
    "reformatted": "encoded in another format",
    "first_frame": "first frame of several",
    "turned": "turned upright",
    "composited": "laid on white, as it was transparent",
    "converted": "colours converted to sRGB",
    "resized": "scaled down",
    "padded": "put into a square",
    "mended": "metadata's structure was damaged",
}
"""By change (`pixels.Change`), in the card's words and order."""


def counted_fates(tallies: Tallies) -> list[list[str]]:
    """What was done, and to how many pictures; of what was done to none, nothing."""
    found = tallies.get("picture", Counter())
    return [[said, f"{found[fate]:,}"] for fate, said in FATES.items() if found[fate]]


def said_of_pixels(asked: Mapping[str, Any] | None) -> str:
    """What holds for every picture of an export, by its settings (`PixelsConfig`), where they ask for anything."""
    return f"{_LEAVES} {_asked(asked)}" if asked else _LEAVES


def _asked(asked: Mapping[str, Any]) -> str:
    side, filter_ = asked["side"], asked["interpolation"]
    of_mode = {
        "keep": "",
        "resize": f"No {asked['by']} side is over {side} px ({filter_}); none was enlarged. ",
        "pad": f"Each is {side} px square: scaled down if it is larger ({filter_}), never enlarged, "
        f"{asked['position']} on {asked['color']}. ",
    }
    as_ = "" if asked["encode_as"] == "auto" else f"; {asked['encode_as']} if it was encoded anew"
    return f"{of_mode[asked['mode']]}Each is {' or '.join(asked['formats'])}{as_}."
