"""The rules of stage 01, in the order in which they are asked: the first that rejects is the reason."""

from __future__ import annotations

from vlmdata.config import FilterConfig
from vlmdata.filtering.rules.aspect_ratio import MaxAspectRatio
from vlmdata.filtering.rules.base import Rule, Verdict
from vlmdata.filtering.rules.decodes import Decodes
from vlmdata.filtering.rules.min_side import MinSide

__all__ = ["Rule", "Verdict", "rules"]


def rules(config: FilterConfig) -> list[Rule]:
    """The rules that a config asks for."""
    asked: list[Rule] = [Decodes(config.max_pixels), MinSide(config.min_side)]
    if config.max_aspect_ratio is not None:
        asked.append(MaxAspectRatio(config.max_aspect_ratio))
    return asked
