"""Which samples a page shows: so many of each kind, the same ones whenever it is made.

An id is a hash, so the smallest ids of a group are a fair draw from it,
however shards were cut and whatever came first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, zip_longest
from typing import Any

from vlmdata.report.ledger import Ledger, Row
from vlmdata.report.reasons import meaning

_MOST_GROUPS = 40
"""Reasons that have a gallery, those with most samples; a web of hosts can answer in hundreds of ways."""
_MOST_MODELS = 6
_MEMBERS = 8
"""Of a cluster of near-duplicates, beside the one that stays."""
_NOT_OF_ITS_OWN = "sample_%"
"""Codes of captions that only share their picture's fate."""


@dataclass(frozen=True)
class Item:
    """A card: a sample; the caption that it is about, if it is about one; words of its own."""

    id: str
    caption: str | None = None
    note: str | None = None
    distance: int | None = None


@dataclass(frozen=True)
class Gallery:
    """Cards under one heading.

    Attributes:
        section: rejected, duplicates, held, failed, pairs, captions or kept.
        title: The heading.
        note: A sentence below it.
        total: How many there are, shown or not.
        items: The cards; of a cluster, the one that stays comes first.
        asks: Filters that find all of them.
    """

    section: str
    title: str
    note: str
    total: int
    items: tuple[Item, ...]
    asks: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; what a card does not say is left out."""
        items = [{name: value for name, value in asdict(item).items() if value is not None} for item in self.items]
        return {**asdict(self), "items": items}


def galleries(ledger: Ledger, most: int, unfound: Sequence[Row] = ()) -> list[Gallery]:
    """All galleries of a page, with at most `most` cards each.

    Args:
        unfound: Rows of `schema.RETRIEVAL`: captions that did not find their picture, the worst first.
    """
    return [
        *_fates(ledger, most),
        *_clusters(ledger, most),
        *_pairs(ledger, most),
        *_unfound(ledger, unfound, most),
        *_captions(ledger, most),
        *_captioner(ledger, most),
        *_kept(ledger, most),
    ]


_SECTIONS = {"rejected": "rejected", "held": "held", "failed": "failed"}


def _fates(ledger: Ledger, most: int) -> list[Gallery]:
    """One for each reason of each stage; near-duplicates are shown beside what they are duplicates of."""
    rows = ledger.rows(
        f"SELECT stage, outcome, code, count(*) AS total, min(id, {most}) AS ids FROM samples"
        " WHERE outcome <> 'kept' AND code <> 'near_duplicate' GROUP BY ALL"
        f" ORDER BY total DESC, stage, outcome, code LIMIT {_MOST_GROUPS}"
    )
    rows.sort(key=lambda row: (row["stage"], -row["total"], row["code"]))
    return [
        Gallery(
            section=_SECTIONS[row["outcome"]],
            title=meaning(row["code"]).title,
            note=f"{row['code']}, {row['stage']}",
            total=row["total"],
            items=tuple(map(Item, row["ids"])),
            asks={"stage": row["stage"], "reason": row["code"], "outcome": row["outcome"]},
        )
        for row in rows
    ]


def _clusters(ledger: Ledger, most: int) -> list[Gallery]:
    """The largest clusters: the picture that stayed, then those that went for it, the closest first."""
    rows = ledger.rows(
        f"SELECT related, count(*) AS total, min({{'distance': value, 'id': id}}, {_MEMBERS}) AS gone FROM samples"
        f" WHERE code = 'near_duplicate' GROUP BY related ORDER BY total DESC, related LIMIT {most}"
    )
    return [
        Gallery(
            section="duplicates",
            title="1 copy" if row["total"] == 1 else f"{row['total']:,} copies",
            note="",
            total=row["total"],
            items=(Item(row["related"]), *(Item(one["id"], distance=int(one["distance"])) for one in row["gone"])),
            asks={"reason": "near_duplicate", "q": row["related"]},
        )
        for row in rows
    ]


def _pairs(ledger: Ledger, most: int) -> list[Gallery]:
    """The best and the worst that were kept, for each model: scores of two models cannot be compared."""
    models = ledger.rows(
        "SELECT model, count(*) AS total FROM captions WHERE outcome = 'kept' AND score IS NOT NULL"
        f" GROUP BY model ORDER BY total DESC, model LIMIT {_MOST_MODELS}"
    )
    found = []
    for model in models:
        for order, title in (("ASC", "The worst that were kept"), ("DESC", "The best")):
            rows = ledger.rows(
                "SELECT id, caption_id FROM captions WHERE model = ? AND outcome = 'kept' AND score IS NOT NULL"
                f" ORDER BY score {order}, caption_id LIMIT {most}",
                [model["model"]],
            )
            items = tuple(Item(row["id"], row["caption_id"]) for row in rows)
            named = str(model["model"]).partition("@")[0]
            found.append(Gallery("pairs", title, f"by {named}", model["total"], items, {"outcome": "kept"}))
    return found


def _unfound(ledger: Ledger, rows: Sequence[Row], most: int) -> list[Gallery]:
    items = [
        Item(row["id"], row["caption_id"], f"its caption comes as no. {row['to_text']:,} of {row['gallery']:,}")
        for row in rows[:most]
        if row["to_text"] > 1
    ]
    note = "what the retrieval check put furthest from its own caption, among those that were kept"
    return [Gallery("pairs", "Furthest from their captions", note, len(items), tuple(items))] if items else []


def _captions(ledger: Ledger, most: int) -> list[Gallery]:
    """Captions that did not go on for reasons of their own."""
    rows = ledger.rows(
        f"SELECT stage, outcome, code, count(*) AS total, min({{'c': caption_id, 'i': id}}, {most}) AS some"
        " FROM captions WHERE outcome <> 'kept' AND code NOT LIKE ? GROUP BY ALL"
        f" ORDER BY total DESC, stage, outcome, code LIMIT {_MOST_GROUPS}",
        [_NOT_OF_ITS_OWN],
    )
    rows.sort(key=lambda row: (row["stage"], -row["total"], row["code"]))
    return [
        Gallery(
            section="captions",
            title=meaning(row["code"]).title,
            note=f"{row['code']}, {row['stage']}",
            total=row["total"],
            items=tuple(Item(one["i"], one["c"]) for one in row["some"]),
            asks={"reason": row["code"]},
        )
        for row in rows
    ]


def _captioner(ledger: Ledger, most: int) -> list[Gallery]:
    """Pictures that the captioner was asked about and said nothing of."""
    rows = ledger.rows(
        f"SELECT failure, count(*) AS total, min({{'i': id, 'm': message}}, {most}) AS some FROM asked"
        " GROUP BY failure ORDER BY total DESC, failure"
    )
    return [
        Gallery(
            section="captions",
            title=meaning(f"caption_{row['failure']}").title,
            note=f"caption_{row['failure']}, 02_captioned; a sample with other captions went on with those",
            total=row["total"],
            items=tuple(Item(one["i"], note=(one["m"] or "")[:300]) for one in row["some"]),
            asks={"reason": f"caption_{row['failure']}"},
        )
        for row in rows
    ]


def _kept(ledger: Ledger, most: int) -> list[Gallery]:
    [row] = ledger.rows(f"SELECT count(*) AS total, min(id, {most}) AS ids FROM samples WHERE outcome = 'kept'")
    if not row["total"]:
        return []
    return [
        Gallery("kept", "A few of what was kept", "", row["total"], tuple(map(Item, row["ids"])), {"outcome": "kept"})
    ]


def shown(drawn: Iterable[Gallery]) -> list[str]:
    """Ids of all samples on the page, once each: the first of every gallery, then the second of every one, and so on.

    In that order thumbnails are made, so that if there is no room for all,
    no gallery is without.
    """
    rounds = zip_longest(*([item.id for item in gallery.items] for gallery in drawn))
    return list(dict.fromkeys(id_ for id_ in chain.from_iterable(rounds) if id_ is not None))
