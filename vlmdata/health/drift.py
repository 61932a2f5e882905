"""What moved between two runs of a dataset: the population stability index of every distribution.

PSI = sum over the values of (now - before) * ln(now / before), shares of the
whole (Siddiqi, "Credit Risk Scorecards", 2006; below 0.1 nothing moved, above
0.2 or 0.25 it did).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmdata.errors import ConfigError
from vlmdata.health.health import Health

_CHANCE = 0.01
"""How often two draws of one population may pass for a drift."""
_FATES = ("kept", "rejected", "held", "failed")

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moved:
    """A figure that changed, or a distribution that was compared.

    Attributes:
        name: Of the figure or the distribution.
        before: The figure; of a distribution, the share of the value that moved the most, 0 to 1.
        now: The same of the later run; null: there is nothing to tell it from.
        psi: Population stability index; null of a figure, and where one of two distributions is of nothing.
        over: It is above the bound, and above what chance does to sets of these sizes.
        value: Of a distribution, the value that moved the most; null: not stated.
    """

    name: str
    before: float | None
    now: float | None
    psi: float | None
    over: bool
    value: str | None = None


def drift(before: Health, now: Health, bound: float = 0.2) -> list[Moved]:
    """Every distribution, the one that moved most first, then the figures that changed.

    Scores are compared where the same model gave them.

    Raises:
        ConfigError: the two runs reached different stages, so they counted different things.
    """
    if before.stage != now.stage:
        raise ConfigError(
            f"health of run {before.run} is of {before.stage}, that of run {now.run} of {now.stage}: "
            "expected two runs that reached the same stage"
        )
    earlier, later = _distributions(before), _distributions(now)
    names = [name for name in dict.fromkeys([*earlier, *later]) if _comparable(name, earlier, later)]
    compared = [_compared(name[0], earlier.get(name, Counter()), later.get(name, Counter()), bound) for name in names]
    return [*sorted(compared, key=lambda moved: -(moved.psi or 0.0)), *_figures(before, now)]


Name = tuple[str, str | None]
"""A distribution, and the model that it holds scores of."""


def _distributions(health: Health) -> dict[Name, Counter[str | None]]:
    found: dict[Name, Counter[str | None]] = {}
    for row in health.distributions.to_pylist():
        found.setdefault((row["what"], None), Counter())[row["value"]] += row["count"]
    for row in health.stages.to_pylist():
        if row["in"]:
            found[f"outcome of {row['stage']}", None] = Counter({fate: row[fate] for fate in _FATES})
    for row in health.scores.to_pylist():
        name = f"score of {row['language']}", row["model"]
        found.setdefault(name, Counter())[f"{row['low']:.2f} to {row['high']:.2f}"] += row["count"]
    return found


def _comparable(name: Name, earlier: Mapping[Name, object], later: Mapping[Name, object]) -> bool:
    return name[1] is None or (name in earlier and name in later)


def _compared(name: str, before: Counter[str | None], now: Counter[str | None], bound: float) -> Moved:
    values = [value for value in {**before, **now} if before[value] or now[value]]
    if not before.total() or not now.total():
        return Moved(name, None, None, None, False)
    one, other = (np.array([counts[value] for value in values], np.float64) for counts in (before, now))
    shares = one / one.sum(), other / other.sum()
    most = int(np.argmax(np.abs(shares[1] - shares[0])))
    index = psi(one, other)
    over = index > max(bound, psi_by_chance(one, other))
    return Moved(name, float(shares[0][most]), float(shares[1][most]), index, over, values[most])


def psi(before: Counts, now: Counts) -> float:
    """Population stability index of two counts (n) over the same n values; neither is all 0.

    Half of one is added to each count, so that an empty bin has a share above 0.
    """
    one, other = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (before, now))
    return float(np.sum((other - one) * np.log(other / one)))


def psi_by_chance(before: Counts, now: Counts, chance: float = _CHANCE) -> float:
    """What the index of two draws from one population, of these sizes, is above with a probability of `chance`.

    Over 1/n + 1/m it is distributed as chi-squared (Yurdakul, "Statistical
    properties of population stability index", 2018). A hundred images in twenty
    bins differ by 0.7 from the next hundred, and nothing has moved.
    """
    from scipy.special import chdtri

    return float(chdtri(max(len(before) - 1, 1), chance) * (1 / before.sum() + 1 / now.sum()))


def _figures(before: Health, now: Health) -> Iterator[Moved]:
    same_models = _models(before) == _models(now)
    for name in {**before.figures, **now.figures}:
        one, other = before.figures.get(name), now.figures.get(name)
        if one != other and (same_models or name != "mean_score"):
            yield Moved(name, one, other, None, False)


def _models(health: Health) -> set[str]:
    return set(health.scores["model"].to_pylist())
