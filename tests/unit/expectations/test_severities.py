"""What a config says of gates is looked at before anything is done."""

from __future__ import annotations

from typing import Any

import pytest

from expectations.rule import Figure, none_may
from expectations.severities import RULES, check_gates, weighed
from vlmdata.config import GatesConfig
from vlmdata.errors import ConfigError

FIGURES = ("images", "mean_score", "duplicates_removed")


def gates(**said: Any) -> GatesConfig:
    return GatesConfig.model_validate(said)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"severities": {"min_sid": "warn"}}, r"'min_sid'; did you mean min_side"),
        ({"severities": {"zzz": "warn"}}, "there are not_empty, unique_ids, .*above_accept_bound"),
        ({"severities": {"not_empty": "warn"}}, "not_empty = warn: expected stop"),
        ({"health": {"mean_scor": {"at_least": 1}}}, r"'mean_scor'; did you mean mean_score"),
        ({"health": {"xyz": {"at_least": 1}}}, "there are images, mean_score, duplicates_removed"),
        ({"health": {"images": {"severity": "warn"}}}, "gates.health.images: says no bound"),
        ({"recall_at_10": {"at_least": 0.9, "at_most": 0.8}}, "gates.recall_at_10: at_least = 0.9 is above"),
        ({"languages": {"zh-TW": {"at_least": 0.1}}}, "'zh-TW': expected a language without a region"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        check_gates(gates(**said), FIGURES)
    assert "\n" not in str(error.value)


def test_what_can_be_meant_is_not() -> None:
    severities = {name: "stop" if name == "not_empty" else "warn" for name in RULES}
    bounds = {"at_least": 0, "at_most": 0}
    figures = dict.fromkeys(FIGURES, bounds)
    check_gates(gates(severities=severities, health=figures, languages={"en": bounds}, recall_at_10=bounds), FIGURES)
    check_gates(gates(health={"of_another_version": bounds}))


def test_a_rule_stops_unless_it_is_told_to_warn() -> None:
    rules = [none_may(name, "asked", name, Figure(0)) for name in ("sha256", "min_side")]
    assert [rule.severity for rule in weighed(rules, gates())] == ["stop", "stop"]
    assert [rule.severity for rule in weighed(rules, gates(severities={"min_side": "warn"}))] == ["stop", "warn"]
