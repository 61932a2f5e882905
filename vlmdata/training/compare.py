"""The proof: the same preset on two versions of a set, with equal compute, measured on the same held-out pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from vlmdata.errors import ConfigError, SourceError
from vlmdata.store import LocalStore
from vlmdata.training.batch import batch_of
from vlmdata.training.card import WAYS
from vlmdata.training.config import TRAIN, TrainConfig
from vlmdata.training.order import Rows
from vlmdata.training.samples import TRAIN as TRAIN_SPLIT
from vlmdata.training.samples import VALIDATION, Samples, open_samples

if TYPE_CHECKING:
    from vlmdata.quality.recall import Recall

MEASURES = tuple(f"{way}_r{k}" for way in WAYS for k in (1, 5, 10))
RESULT = "compare.json"
_FEWEST_SEEDS = 2
_READ_AT_ONCE = 256


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and where it lies with 95 % confidence (Student's t)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """From a value a seed, two or more."""
        from scipy.stats import t

        mean = float(np.mean(values))
        spread = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
        return cls(mean, mean - spread, mean + spread)


@dataclass(frozen=True)
class Compared:
    """Two sets, by what models learned from them.

    Attributes:
        a, b: recall of each way and k, over seeds.
        difference: b - a, paired by seed.
        seeds, steps, effective, held_out: what the two had in common.
        sizes: pairs that each trained on.
    """

    a: dict[str, Interval]
    b: dict[str, Interval]
    difference: dict[str, Interval]
    seeds: int
    steps: int
    effective: int
    held_out: int
    sizes: tuple[int, int]


def compare(config: TrainConfig, a: str, b: str, seeds: int, held_out: str | None = None) -> Compared:
    """Train on both sets with each seed; measure all models on the same pictures.

    Args:
        config: The preset, with `out`; its data is not looked at.
        a, b: The two sets.
        seeds: How often; what is drawn differs, and the intervals come from that.
        held_out: The set whose validation split measures; by default that of `b`.

    Raises:
        ConfigError: too few seeds, or the preset cannot be used.
        SourceError: a set cannot be read, or held-out pictures are trained on.
    """
    if seeds < _FEWEST_SEEDS:
        raise ConfigError(
            f"--seeds {seeds}: expected {_FEWEST_SEEDS} or more; an interval comes from their differences"
        )
    out = Path(config.out)
    sets = {"a": a, "b": b, "held-out": held_out or b}
    opened = {name: _opened(config, data, out / name) for name, data in sets.items()}
    measured_on = opened["held-out"]
    for name in ("a", "b"):
        _refuse_overlap(sets[name], opened[name], measured_on)
    effective = batch_of(config, 1).effective
    steps = config.epoch_steps or min(len(opened[name].rows(TRAIN_SPLIT)) for name in ("a", "b")) // effective
    found: dict[str, list[dict[str, float]]] = {"a": [], "b": []}
    total = 0
    for seed in range(config.seed, config.seed + seeds):
        for name, rows in found.items():
            one = _with(
                config, data=sets[name], out=str(out / name / f"seed-{seed}"), seed=seed, epoch_steps=steps or 1
            )
            story = _trained(one, f"train {name.upper()}, seed {seed}")
            total = int(story["steps"])
            rows.append(_measured(one, story["model"], measured_on))
    compared = Compared(
        a=_intervals(found["a"]),
        b=_intervals(found["b"]),
        difference={
            name: Interval.of([other[name] - one[name] for one, other in zip(found["a"], found["b"], strict=True)])
            for name in MEASURES
        },
        seeds=seeds,
        steps=total,
        effective=effective,
        held_out=len(measured_on.rows(VALIDATION)),
        sizes=(len(opened["a"].rows(TRAIN_SPLIT)), len(opened["b"].rows(TRAIN_SPLIT))),
    )
    LocalStore(str(out), "out").replace(RESULT, (json.dumps(asdict(compared), indent=1) + "\n").encode())
    return compared


def as_lines(found: Compared) -> list[str]:
    """A table in Markdown, and what it rests on."""
    rows = [
        f"| {WAYS[name.rpartition('_')[0]]} R@{name.rpartition('_r')[2]} | {_percent(found.a[name])} |"
        f" {_percent(found.b[name])} | {_points(found.difference[name])} |"
        for name in MEASURES
    ]
    return [
        "| | A | B | B - A, paired |",
        "| --- | --- | --- | --- |",
        *rows,
        f"{found.seeds} seeds; {found.steps} steps of {found.effective} pairs for each; {found.sizes[0]:,} pairs in A,"
        f" {found.sizes[1]:,} in B; measured on the same {found.held_out:,} pictures. In brackets 95 % intervals over"
        " seeds.",
    ]


def _opened(config: TrainConfig, data: str, out: Path) -> Samples:
    out.mkdir(parents=True, exist_ok=True)
    return open_samples(_with(config, data=data, out=str(out)), out)


def _with(config: TrainConfig, **changes: Any) -> TrainConfig:
    return TRAIN.parse({**config.model_dump(mode="json", exclude_unset=True), **changes})


def _refuse_overlap(name: str, trained_on: Samples, measured_on: Samples) -> None:
    held, own = measured_on.rows(VALIDATION), trained_on.rows(TRAIN_SPLIT)
    shared = _alike(trained_on, own, measured_on, held, "id")
    # Within one set, copies are a matter of its own split, and the same for all that is compared.
    if trained_on.digest != measured_on.digest:
        shared |= _same_pictures(trained_on, own, measured_on, held)
    if both := int(shared.sum()):
        raise SourceError(
            f"{name}: trains on {both:,} of the held-out pictures; split both sets alike, drop copies, or name others"
            " by --held-out"
        )


def _alike(ours: Samples, rows: Rows, theirs: Samples, other_rows: Rows, column: str) -> npt.NDArray[np.bool_]:
    """Which of our rows have a value of a column that is one of theirs."""
    found = pc.is_in(ours.table[column].take(rows), value_set=theirs.table[column].take(other_rows).combine_chunks())
    return cast("npt.NDArray[np.bool_]", found.to_numpy())


def _same_pictures(ours: Samples, rows: Rows, theirs: Samples, other_rows: Rows) -> npt.NDArray[np.bool_]:
    """Which of our pictures have the bytes of one of theirs, under whatever name; those as large as one are read."""
    may = _alike(ours, rows, theirs, other_rows, "size")
    digests = set(_digests(theirs, other_rows[_alike(theirs, other_rows, ours, rows, "size")]))
    found = np.zeros(len(rows), bool)
    found[may] = [digest in digests for digest in _digests(ours, rows[may])]
    return found


def _digests(samples: Samples, rows: Rows) -> Iterator[bytes]:
    found = samples.table.select(["tar", "offset", "size"]).combine_chunks().take(rows)
    for start in range(0, len(rows), _READ_AT_ONCE):
        some = found.slice(start, _READ_AT_ONCE).to_pylist()
        places = [(row["tar"], row["offset"], row["size"]) for row in some]
        yield from (sha256(data).digest() for data in samples.tars.read(places))


def _trained(config: TrainConfig, title: str) -> dict[str, Any]:
    from vlmdata.training.train import train

    return train(config, title)


def _measured(config: TrainConfig, model: str, samples: Samples) -> dict[str, float]:
    from vlmdata.models.load import load_parts
    from vlmdata.models.source import resolve
    from vlmdata.training.engine.evaluation import evaluate
    from vlmdata.training.engine.pair import Pair
    from vlmdata.training.loading import Pairs
    from vlmdata.training.transforms import measuring

    parts = load_parts(resolve(model))
    own = measuring(parts.preprocess)
    pairs = Pairs(samples, own, own, own, parts.tokenizer, config.seed)
    pair = Pair(parts.model, low_precision=False, device="cpu")
    found = evaluate(pair, pairs, samples.rows(VALIDATION), config.evaluation, "cpu")
    return {f"{way}_r{k}": _share(recall, k) for way, recall in found.items() for k in (1, 5, 10)}


def _share(recall: Recall, k: int) -> float:
    return float(getattr(recall, f"r{k}"))


def _intervals(rows: Sequence[dict[str, float]]) -> dict[str, Interval]:
    return {name: Interval.of([row[name] for row in rows]) for name in MEASURES}


def _percent(one: Interval) -> str:
    return f"{one.mean:.1%} [{one.low:.1%}, {one.high:.1%}]"


def _points(one: Interval) -> str:
    return f"{100 * one.mean:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
