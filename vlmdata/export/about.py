"""What lies beside an export's files and tells of them: README.md, croissant.json, and the card's plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmdata.export.card import CardFacts, card
from vlmdata.export.card_health import plot_path
from vlmdata.export.croissant import croissant
from vlmdata.export.names import CARD, CROISSANT
from vlmdata.export.tallies import Tallies


def about(manifest: Mapping[str, Any], tallies: Tallies, facts: CardFacts) -> dict[str, bytes]:
    """Their bytes, by name: of the files that a manifest lists, and of the run that first finished them.

    MANIFEST.json names them under `about` without their digests: it follows
    from the export alone, and they tell of more than that.
    """
    plots = {plot_path(name): svg.encode() for name, svg in facts.get("plots", {}).items()}
    told = {CARD: card(manifest, tallies, facts).encode(), CROISSANT: croissant(manifest, tallies), **plots}
    return dict(sorted(told.items()))
