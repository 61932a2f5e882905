"""What the three metadata strippers share."""

from __future__ import annotations


class Malformed(ValueError):
    """A file's structure is not as its format says: it is encoded anew, not copied."""


def is_sound_profile(profile: bytes) -> bool:
    """Whether bytes are an ICC profile, whole and with nothing between its parts.

    ICC.1:2022, 7.2 and 7.3: size in bytes 0-3, the signature `acsp` in 36-39;
    from 128 a table of tags (signature, offset, size), whose data fill the rest
    of the profile but for padding to 4 bytes, each after a type signature and 4
    zero bytes. Anything else could carry what it likes into the export.
    """
    declared = int.from_bytes(profile[:4], "big")
    if len(profile) < 132 or profile[36:40] != b"acsp" or not declared <= len(profile) <= declared + 3:
        return False
    tags = int.from_bytes(profile[128:132], "big")
    end = 132 + 12 * tags
    if not tags or end > len(profile):
        return False
    # Several tags may share one place.
    for start, size in sorted({_place(profile, 132 + 12 * tag) for tag in range(tags)}):
        if not end <= start <= end + 3 or size < 8 or start + size > len(profile) or not _is_typed(profile, start):
            return False
        end = start + size
    return len(profile) <= end + 3


def _place(profile: bytes, entry: int) -> tuple[int, int]:
    """Offset and size that an entry of the tag table states."""
    return int.from_bytes(profile[entry + 4 : entry + 8], "big"), int.from_bytes(profile[entry + 8 : entry + 12], "big")


def _is_typed(profile: bytes, start: int) -> bool:
    """Whether tag data begin with the signature of a type and 4 reserved zeros."""
    return profile[start : start + 4].strip().isalnum() and profile[start + 4 : start + 8] == bytes(4)
