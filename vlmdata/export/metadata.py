"""What the three metadata strippers share."""

from __future__ import annotations


class Malformed(ValueError):
    """A file's structure is not as its format says: it is encoded anew, not copied."""


def is_sound_profile(profile: bytes) -> bool:
    """Whether bytes are an ICC profile of the length that its header declares.

    ICC.1:2022, 7.2: size in bytes 0-3, the signature `acsp` in 36-39. Anything
    else could carry what it likes into the export.
    """
    declared = int.from_bytes(profile[:4], "big")
    return len(profile) >= 128 and profile[36:40] == b"acsp" and declared <= len(profile) <= declared + 3
