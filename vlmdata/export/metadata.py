"""What the three metadata strippers share."""

from __future__ import annotations


class Malformed(ValueError):
    """A file's structure is not as its format says: it is encoded anew, not copied."""
