"""The retrieval check: if images do not find their captions, the set is to be cleaned before anybody trains on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import QualityConfig, RetrievalConfig
from vlmdata.errors import NeedsCleaning
from vlmdata.layout import Step
from vlmdata.quality.judges import Judges, judges
from vlmdata.quality.recall import Recall, wilson
from vlmdata.quality.searched import searched
from vlmdata.schema import RETRIEVAL

TOO_FEW = 100
"""Samples below which a share says nothing."""
TOO_FEW_TO_TELL = "too few to tell"
"""The verdict over fewer."""
WORST = 50
RANKS = ["id", "caption_id", "model", "score", "gallery", "to_text", "to_image"]
"""What is kept of each image that was drawn, of `schema.RETRIEVAL`."""
RANKS_FILE = "retrieval.parquet"
_GROUPS = ("source", "origin", "shard", "language")


@dataclass(frozen=True)
class Retrieval:
    """What the check found.

    `exports` and `scored` hold, for would-be exports and for all scored
    samples, "image_to_text" and "text_to_image"; `worst` rows of
    `schema.RETRIEVAL`, the worst first; `groups` the miss rate of each source,
    origin of captions, shard and language, the worst first. `galleries` are the sizes that were
    searched, each model's own; `drawn` has the ranks of all images in them (`RANKS`); `max_miss_rate` is the
    mean of their bounds, by images. `verdict` is "passed", "needs
    cleaning" or "too few to tell".
    """

    verdict: str
    galleries: tuple[int, ...]
    top_k: int
    miss_rate: float
    max_miss_rate: float
    exports: dict[str, Recall]
    scored: dict[str, Recall]
    groups: dict[str, list[dict[str, Any]]]
    worst: pa.Table
    drawn: pa.Table = field(default_factory=lambda: RETRIEVAL.empty_table().select(RANKS))

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        n = self.exports["image_to_text"].n
        share = f"{self.miss_rate:.1%} of {n} images do not find their caption among the first {self.top_k}"
        told = f"retrieval: {share}, of galleries of {' and '.join(map(str, self.galleries)) or 0}"
        if self.verdict == TOO_FEW_TO_TELL:
            return f"{told}: {TOO_FEW_TO_TELL} (fewer than {TOO_FEW})"
        return f"{told}; the bound is {self.max_miss_rate:.0%}"

    def record(self) -> dict[str, Any]:
        """For JSON: everything."""
        told = {
            name: value for name, value in vars(self).items() if name not in {"worst", "drawn", "exports", "scored"}
        }
        for name in ("exports", "scored"):
            told[name] = {way: asdict(recall) for way, recall in getattr(self, name).items()}
        return {**told, "sentence": self.sentence, "worst": self.worst.to_pylist()}

    def require_clean(self) -> None:
        """Stop a set that is to be cleaned.

        Raises:
            NeedsCleaning: names the worst of each group.
        """
        if self.verdict != "needs cleaning":
            return
        parts = [f"{name} {rows[0]['name']} ({rows[0]['miss_rate']:.0%})" for name, rows in self.groups.items() if rows]
        raise NeedsCleaning(f"{self.sentence}; worst: {', '.join(parts)}; clean those, and build again")


def measure_retrieval(dataset: Dataset, shards: Sequence[Shard], config: QualityConfig) -> Retrieval:
    """Image to text and text to image over shards of 03_quality_checked, by each model that judged.

    Raises:
        ConfigError: a judge is not there.
    """
    bench, wanted = judges(config), config.retrieval
    exports = searched(dataset, shards, bench, config, Step.CHECKED)
    scored = searched(dataset, shards, bench, config, Step.CAPTIONED)
    to_text = exports["to_text"].to_numpy()
    missed = float((to_text > wanted.top_k).mean()) if len(to_text) else 0.0
    bound = _bound(exports, bench, wanted)
    return Retrieval(
        verdict=_verdict(len(to_text), missed, bound),
        galleries=tuple(sorted(pc.unique(exports["gallery"]).to_pylist())),
        top_k=wanted.top_k,
        miss_rate=missed,
        max_miss_rate=bound,
        exports=_both_ways(exports),
        scored=_both_ways(scored),
        groups={name: _by_group(exports, name, wanted.top_k) for name in _GROUPS},
        drawn=exports.select(RANKS).sort_by("id"),
        worst=exports.sort_by([("to_text", "descending"), ("score", "ascending"), ("id", "ascending")]).slice(0, WORST),
    )


def _bound(exports: pa.Table, bench: Judges, wanted: RetrievalConfig) -> float:
    """The share of misses that ends a run: of several models, the mean of theirs, by the images that each looked at."""
    looked = pc.value_counts(exports["model"]).to_pylist()
    total = sum(one["counts"] for one in looked)
    search = bench.search(wanted)
    allowed = sum(search[one["values"]].max_miss_rate * one["counts"] for one in looked)
    # A mean of equal bounds may miss them by a bit.
    return max(wanted.max_miss_rate, round(allowed / total, 9)) if total else wanted.max_miss_rate


def _verdict(n: int, missed: float, bound: float) -> str:
    if n < TOO_FEW:
        return TOO_FEW_TO_TELL
    return "needs cleaning" if missed >= bound else "passed"


def _both_ways(rows: pa.Table) -> dict[str, Recall]:
    return {
        "image_to_text": Recall.of(rows["to_text"].to_numpy()),
        "text_to_image": Recall.of(rows["to_image"].to_numpy()),
    }


def _by_group(rows: pa.Table, name: str, top_k: int) -> list[dict[str, Any]]:
    """Images and miss rate of each value of a column; the surest to be bad first, not the smallest."""
    missed = pc.cast(pc.greater(rows["to_text"], top_k), pa.float64())
    told = pa.table({"name": rows[name], "missed": missed}).group_by("name")
    means = told.aggregate([("missed", "mean"), ("missed", "count")]).rename_columns(["name", "miss_rate", "images"])
    return sorted(means.to_pylist(), key=_surely_good)


def _surely_good(row: dict[str, Any]) -> tuple[float, str]:
    """Less the lower bound of the miss rate: one miss in one says less than forty in a hundred."""
    low, _ = wilson(round(row["miss_rate"] * row["images"]), row["images"])
    return -low, str(row["name"])
