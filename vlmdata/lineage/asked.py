"""What was asked of a captioner about one picture: questions, attempts, requests, tokens and money."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from vlmdata.captioning.journal.history import Request, requests_of
from vlmdata.captioning.journal.records import NANO
from vlmdata.checkpoint import Shard
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError
from vlmdata.layout import Step
from vlmdata.lineage.plain import plain
from vlmdata.lineage.view import View

_OF_THE_QUESTION = ("language", "temperature", "max_tokens", "max_side")


def asked(view: View, shard: Shard, content: str, attempts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `schema.ATTEMPTS` of a picture, each with its question and its requests.

    Args:
        view: Whose journal and config.
        shard: Where the picture lies, as 02 left it.
        content: The sha256 of its bytes.
        attempts: Its rows.
    """
    questions = _questions(view, shard, content) if attempts else {}
    several = [row["key"] for row in attempts if row["requests"] > 1 or row["attempt"] > 1]
    history = requests_of(view.dataset, several)
    told = []
    for row in attempts:
        # An attempt of one request tells all about it; of others only the journal's log knows.
        sent = [_request(one) for one in history.get(row["key"], ())] or _only_one(row)
        costs = [one["cost"] for one in sent if "cost" in one]
        whole = {"cost_in_all": sum(costs)} if costs else {}
        told.append({**questions.get(row["key"], {}), **plain(row, {"id", "key"}), **whole, "requests_sent": sent})
    return told


def _questions(view: View, shard: Shard, content: str) -> dict[str, dict[str, Any]]:
    """By the journal's name what was asked: as the checkpoint says, else as far as the run's config gives that name."""
    from vlmdata.captioning.questions import keys_of

    recorded = view.dataset.manifest(shard, Step.CAPTIONED).facts.get("questions")
    settings = recorded or _of_config(view.config.caption if view.config else None)
    return {keys_of(one, [content])[0]: _told(one) for one in settings}


def _of_config(config: CaptionConfig | None) -> list[dict[str, Any]]:
    from vlmdata.captioning.again import times_again
    from vlmdata.captioning.questions import askers

    if config is None:
        return []
    try:
        return [asker.settings() for take in range(times_again(config) + 1) for asker in askers(config, take)]
    except ConfigError:
        # The prompt's file is gone: the answers still stand.
        return []


def _told(settings: Mapping[str, Any]) -> dict[str, Any]:
    name, _, rest = str(settings["prompt"]).partition("@")
    version, _, digest = rest.partition(":")
    return {
        "model": settings["model"],
        "prompt": settings["prompt"],
        "prompt_name": name,
        "prompt_version": int(version) if version.isdecimal() else version,
        "prompt_digest": digest,
        **({"again": settings["take"]} if settings["take"] else {}),
        **{name: settings[name] for name in _OF_THE_QUESTION if settings.get(name) is not None},
    }


def _request(one: Request) -> dict[str, Any]:
    """Its worst cost, too: that is what counts as spent where nobody says what was used."""
    ask, end = one.ask, one.end
    told: dict[str, Any] = {"attempt": ask.attempt, "request": ask.request, "cost_at_most": ask.reserved / NANO}
    if end is None:
        return {**told, "outcome": "no answer on record"}
    told |= {
        "outcome": "answered" if end.failure is None else "failed",
        "failure": end.failure,
        "http_status": end.status,
        "message": end.message,
        "input_tokens": end.input_tokens,
        "output_tokens": end.output_tokens,
        "cost": None if end.cost is None else end.cost / NANO,
        "seconds": end.seconds,
        "time": datetime.fromtimestamp(end.at, UTC),
        "in_a_batch": True if end.batch else None,
    }
    return plain(told)


def _only_one(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    if row["requests"] != 1 or row["attempt"] != 1:
        return []
    names = ("failure", "http_status", "message", "input_tokens", "output_tokens", "cost", "time")
    outcome = "answered" if row["outcome"] == "captioned" else "failed"
    return [plain({"attempt": 1, "request": 1, "outcome": outcome, **{name: row[name] for name in names}})]
