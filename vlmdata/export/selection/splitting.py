"""The splits of a set's samples: who is related, what stood before, and what there is to tell of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset
from vlmdata.config import BuildConfig, QualityConfig
from vlmdata.export.mix import draws
from vlmdata.export.selection.candidates import Candidates
from vlmdata.export.selection.kin import NEW, Kin, Positions, Splits, by_caption, by_hash, by_look
from vlmdata.export.selection.reasons import Reasons
from vlmdata.export.selection.splits import CONFLICT, assign
from vlmdata.measure.encoder import device_of

FORMER = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False, metadata={"note": "which it had when it was there"}),
    ]
)
"""Table `former`: the splits of samples that were there once, should they come back."""
_SMALL = 0.5
"""A split that gets less than this part of what it was to have is told of."""


def split_samples(
    dataset: Dataset, found: Candidates, config: BuildConfig, reasons: Reasons, before: str | None
) -> tuple[Splits, pa.Table, dict[str, Any]]:
    """Everybody's split, who is remembered beside them, and what there is to tell."""
    shares = config.export.splits
    if not shares:
        return np.full(len(found.ids), NEW, np.int8), FORMER.empty_table(), {"warnings": []}
    stood, former = _stood(dataset, found, before, list(shares))
    # What is no sample of the set binds nobody.
    clean = reasons.none
    stood[~clean & (stood == NEW)] = CONFLICT
    kin = Kin(stood, len(shares))
    back = pc.index_in(found.ids, value_set=former["id"])
    returned = np.flatnonzero(back.is_valid().to_numpy(zero_copy_only=False))
    had = pc.index_in(former["split"].take(back.drop_null()), value_set=pa.array(list(shares)))
    kin.touches[returned, had.to_numpy().astype(np.int64)] = True
    _relate(kin, found, config, clean)
    strata = pc.dictionary_encode(
        pc.binary_join_element_wise(found.group("source"), pc.fill_null(found.group("language"), ""), "\n")
    )
    names = strata.dictionary.to_pylist()
    rank = np.argsort(np.argsort(np.array(names, object))) if names else np.zeros(0, np.int64)
    split = assign(kin, rank[strata.indices.to_numpy()], draws(found.ids, "split"), shares)
    conflict = np.flatnonzero((split == CONFLICT) & clean)
    reasons.give(conflict, "split_conflict", detail="close to samples of two splits", outcome="held")
    return split, former, _told(kin, split, shares)


def _stood(dataset: Dataset, found: Candidates, before: str | None, names: list[str]) -> tuple[Splits, pa.Table]:
    """The split that each sample has, and those of samples that are not there."""
    if before is None:
        return np.full(len(found.ids), NEW, np.int8), FORMER.empty_table()
    tables = dataset.manifest_at(before).tables
    selected = dataset.table(tables["selected"], FORMER.names)
    # A newcomer that was held is one still.
    selected = selected.filter(pc.is_valid(selected["split"]))
    at = pc.index_in(found.ids, value_set=selected["id"])
    place = pc.index_in(selected["split"].take(at), value_set=pa.array(names))
    gone = selected.filter(pc.invert(pc.is_in(selected["id"], value_set=found.ids)))
    former = pa.concat_tables([gone.cast(FORMER), dataset.table(tables["former"])])
    return pc.fill_null(place, NEW).to_numpy().astype(np.int8), former.combine_chunks()


def _relate(kin: Kin, found: Candidates, config: BuildConfig, clean: npt.NDArray[np.bool_]) -> None:
    """Find whoever is related to a newcomer."""
    by, newcomer = config.export.split_by, kin.split == NEW
    if by.max_distance is not None:
        rows = np.flatnonzero(found.hashed & (kin.split != CONFLICT))
        looks = _Looks(found, config.quality) if by.confirm is not None else None
        for one, other in by_hash(found.hashes[rows], by.max_distance, newcomer[rows]):
            one, other = rows[one], rows[other]
            if looks is not None and by.confirm is not None:
                alike = looks.cosine(one, other) >= by.confirm
                one, other = one[alike], other[alike]
            kin.relate(one, other)
    if by.cosine is not None:
        for one, other in by_look(found.looks(config.quality), newcomer, by.cosine, device_of(config.quality.device)):
            kin.relate(one, other)
    if by.captions:
        for one, other in by_caption(*found.captions(), newcomer):
            kin.relate(one, other)
    if by.caption_cosine is not None:
        for owners, blocks in found.caption_looks():
            for one, other in by_look(blocks, newcomer[owners], by.caption_cosine, device_of(config.quality.device)):
                kin.relate(owners[one], owners[other])


class _Looks:
    """All embeddings at hand, for pairs that are met in any order."""

    def __init__(self, found: Candidates, quality: QualityConfig) -> None:
        self._vectors = np.concatenate([read().astype(np.float16) for _, read in found.looks(quality)])

    def cosine(self, one: Positions, other: Positions) -> npt.NDArray[np.float32]:
        """Of each pair (m,)."""
        found = np.empty(len(one), np.float32)
        for start in range(0, len(one), 65_536):
            part = slice(start, start + 65_536)
            left, right = (self._vectors[rows[part]].astype(np.float32) for rows in (one, other))
            found[part] = np.einsum("nd,nd->n", left, right)
        return found


def _told(kin: Kin, split: Splits, shares: dict[str, float]) -> dict[str, Any]:
    """How many each split has, and a warning where one has far less than it was to have."""
    there = np.bincount(split[split >= 0], minlength=len(shares))
    largest = int(np.bincount(kin.groups()).max(initial=0))
    total = int(there.sum())
    warnings = [
        f"export.splits: {name} has {count:,} samples, not {share * total:,.0f}: {largest:,} belong together, and"
        " cannot be parted; with export.split_by.confirm, or a smaller max_distance, they can"
        for (name, share), count in zip(shares.items(), there.tolist(), strict=True)
        if count < _SMALL * (share * total - 1)
    ]
    return {"splits": dict(zip(shares, there.tolist(), strict=True)), "largest": largest, "warnings": warnings}
