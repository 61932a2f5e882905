"""Which rules stop a run and which warn; and a config's words about gates, looked at before anything is done."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import replace

from expectations.rule import Rule
from vlmdata.config import GateBounds, GatesConfig
from vlmdata.errors import ConfigError

ALWAYS = "not_empty"
"""A suite that looked at no row says nothing, so this one stops in any case."""

RULES = {
    ALWAYS: "every stage: something is left",
    "unique_ids": "every stage: every id stands once",
    "kept_written": "every stage: as many samples are there as the manifest says were kept",
    "samples_accounted": "every stage: samples in = kept + rejected + held + failed",
    "captions_accounted": "every stage: captions in = kept + rejected + held + failed",
    "nothing_lost": "01 to 04: what the stage before kept came in",
    "sha256": "00: every sample names its bytes",
    "min_side": "01: the shorter side is at least filter.min_side",
    "no_near_duplicates": "01: no two kept pictures have hashes within dedup.max_distance",
    "captioned": "02: every sample has a caption",
    "scored": "03: every sample has a caption with a score",
    "no_split_leaks": "04: no two pictures of different splits have hashes within export.split_by.max_distance",
    "above_accept_bound": "03: every caption scores above the accept bound of its judge",
}
"""The rules that every run is held to, by the name that a config calls them."""


def weighed(rules: Sequence[Rule], gates: GatesConfig) -> list[Rule]:
    """The rules with the severities that a config gives them."""
    return [replace(rule, severity=gates.severities.get(rule.name, rule.severity)) for rule in rules]


def check_gates(gates: GatesConfig, figures: Collection[str] = ()) -> None:
    """Refuse what a config says of rules, figures or languages that are not there.

    Args:
        gates: What the config says.
        figures: Names of all health figures; none: they are not looked at.

    Raises:
        ConfigError: names the nearest that is there.
    """
    for name, severity in gates.severities.items():
        if name not in RULES:
            raise ConfigError(f"gates.severities: no rule is called {name!r}; {_nearest(name, RULES)}")
        if name == ALWAYS and severity != "stop":
            raise ConfigError(
                f"gates.severities.{ALWAYS} = {severity}: expected stop; nothing can be said of no samples"
            )
    for name in gates.health if figures else ():
        if name not in figures:
            raise ConfigError(f"gates.health: no figure is called {name!r}; {_nearest(name, figures)}")
    for tag in gates.languages:
        if not tag.isalnum():
            raise ConfigError(f"gates.languages: {tag!r}: expected a language without a region, such as en or zh")
    for where, bounds in _bounds(gates).items():
        _check_bounds(where, bounds)


def _bounds(gates: GatesConfig) -> dict[str, GateBounds]:
    named = {f"gates.health.{name}": bounds for name, bounds in gates.health.items()}
    named |= {f"gates.languages.{tag}": bounds for tag, bounds in gates.languages.items()}
    return named | ({"gates.recall_at_10": gates.recall_at_10} if gates.recall_at_10 else {})


def _check_bounds(where: str, bounds: GateBounds) -> None:
    low, high = bounds.at_least, bounds.at_most
    if low is None and high is None:
        raise ConfigError(f"{where}: says no bound; expected at_least, at_most or both")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"{where}: at_least = {low} is above at_most = {high}; expected the lower of the two")


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
