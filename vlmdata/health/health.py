"""The health of one run: plain tables and figures, as they are stored, shown and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vlmdata.health.lengths import LENGTHS

DISTRIBUTIONS = pa.schema(
    [
        pa.field(
            "what",
            pa.string(),
            nullable=False,
            metadata={"note": "of images: size, aspect_ratio, license, source; of captions: language, origin, lengths"},
        ),
        pa.field("value", pa.string(), metadata={"note": "null: not stated"}),
        pa.field("count", pa.int64(), nullable=False, metadata={"note": "images or captions"}),
    ]
)

SCORES = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False, metadata={"note": "who gave the scores"}),
        pa.field("language", pa.string(), nullable=False),
        pa.field("low", pa.float64(), nullable=False, metadata={"note": "CLIPScore, from here"}),
        pa.field("high", pa.float64(), nullable=False, metadata={"note": "to below this"}),
        pa.field("count", pa.int64(), nullable=False, metadata={"note": "captions"}),
    ]
)
"""The score histogram: bins that hold any."""

JUDGED = pa.schema(
    [
        pa.field("language", pa.string(), nullable=False),
        pa.field("model", pa.string(), metadata={"note": "null: no model judges this language"}),
        pa.field("count", pa.int64(), nullable=False, metadata={"note": "captions"}),
        pa.field("scored", pa.int64(), nullable=False, metadata={"note": "captions"}),
        pa.field("mean_score", pa.float64(), metadata={"note": "CLIPScore; null: none is scored"}),
    ]
)

STAGES = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("in", "kept", "rejected", "held", "failed")),
        pa.field("rejection_rate", pa.float64(), metadata={"note": "null: nothing came in"}),
        pa.field("mean_score", pa.float64(), metadata={"note": "best CLIPScore of a sample; null: not scored"}),
    ]
)

_FIGURES = pa.schema([pa.field("name", pa.string(), nullable=False), pa.field("value", pa.float64())])
_TABLES = {"distributions": DISTRIBUTIONS, "lengths": LENGTHS, "scores": SCORES, "judged": JUDGED, "stages": STAGES}
_VERSION = 1

Figures = Mapping[str, float | None]
FIGURES = (
    "images",
    "captions",
    "captions_an_image",
    "duplicates_removed",
    "mean_score",
    "captions_scored",
    "captions_not_scored",
    "captions_truncated",
)
"""Names of the figures of every run."""


@dataclass(frozen=True)
class Health:
    """What a run kept, counted.

    Attributes:
        dataset: Its name.
        run: Its number.
        stage: The last checkpoint that the run reached, 03_quality_checked at most; what that kept is counted.
        figures: Single numbers by name; null: there is nothing to tell it from.
        distributions: `DISTRIBUTIONS`.
        lengths: Length of captions (`lengths.LENGTHS`).
        scores: `SCORES`, over all captions that were scored, whatever their band.
        judged: `JUDGED`, over the same captions and those that could not be scored.
        stages: `STAGES`, as `status.describe_run` has them.
    """

    dataset: str
    run: int
    stage: str
    figures: Figures
    distributions: pa.Table
    lengths: pa.Table
    scores: pa.Table
    judged: pa.Table
    stages: pa.Table

    def tables(self) -> dict[str, pa.Table]:
        """Every table by name; `figures` (name, value) is one of them."""
        figures = pa.table([list(self.figures), list(self.figures.values())], schema=_FIGURES)
        return {"figures": figures, **{name: getattr(self, name) for name in _TABLES}}

    def distribution(self, what: str) -> Counter[str | None]:
        """How many there are of each value, in the order that they are shown in."""
        rows = self.distributions.to_pylist()
        return Counter({row["value"]: row["count"] for row in rows if row["what"] == what})

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON has it: no NaN."""
        return {
            "version": _VERSION,
            "dataset": self.dataset,
            "run": self.run,
            "stage": self.stage,
            "figures": dict(self.figures),
            **{name: getattr(self, name).to_pylist() for name in _TABLES},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Health | None:
        """What `as_json` made; none if another version of this software made it."""
        if content.get("version") != _VERSION:
            return None
        tables = {name: pa.Table.from_pylist(content[name], schema=schema) for name, schema in _TABLES.items()}
        return cls(**{name: content[name] for name in ("dataset", "run", "stage", "figures")}, **tables)
