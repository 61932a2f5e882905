"""The health of a set on its card: figures, sizes, lengths and scores, and pictures of them."""

from __future__ import annotations

from collections.abc import Mapping

from vlmdata.export.markdown import text
from vlmdata.health.health import Health

PLOTS = "plots"
"""The folder beside the card that holds its pictures."""


def health_section(health: Health | None, plots: Mapping[str, str]) -> str:
    """Tables of what stage 03 kept, after the pictures of it, if there are any."""
    from vlmdata.health.render import as_sections

    shown = [f"![{text(name.replace('_', ' '))}]({plot_path(name)})" for name in sorted(plots)]
    # These have sections of their own, licences and languages those of the export itself.
    elsewhere = {"stages", "source", "license", "language", "origin"}
    counted = as_sections(health, without=elsewhere) if health else ""
    parts = [part for part in [*shown, counted] if part]
    return "\n\n".join(["## Health", *parts]) if parts else ""


def plot_path(name: str) -> str:
    """Where a plot lies, below the export's folder.

    Raises:
        ValueError: the name would lead elsewhere.
    """
    if not name.isascii() or not name.replace("_", "").replace("-", "").isalnum() or name != name.lower():
        raise ValueError(f"plot {name!r}: expected a name of lower-case letters, digits, '-' and '_'")
    return f"{PLOTS}/{name}.svg"
