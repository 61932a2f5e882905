"""The rules of stage 01, in the order in which they are asked: the first that rejects is the reason."""

from __future__ import annotations

from vlmdata.config import DedupConfig, FilterConfig
from vlmdata.filtering.rules.aspect_ratio import MaxAspectRatio
from vlmdata.filtering.rules.base import Rule, Verdict
from vlmdata.filtering.rules.decodes import Decodes
from vlmdata.filtering.rules.min_side import MinSide
from vlmdata.filtering.rules.opted_out import OptedOut
from vlmdata.opt_out import OptOut

__all__ = ["Rule", "Verdict", "rules"]


def rules(config: FilterConfig, dedup: DedupConfig, opt_out: OptOut) -> list[Rule]:
    """The rules that a config asks for; what is to be left alone is so within the radius of near-duplicates."""
    asked: list[Rule] = [OptedOut(opt_out, dedup.max_distance)] if opt_out else []
    asked += [Decodes(config.max_pixels), MinSide(config.min_side)]
    if config.max_aspect_ratio is not None:
        asked.append(MaxAspectRatio(config.max_aspect_ratio))
    return asked
