"""Stages on threads of this process, for commands that look before a build; it finds their checkpoints there.

No run is recorded: what is done here is not what `status`, `failures` and `retry` look at next.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import BuildConfig
from vlmdata.layout import Step
from vlmdata.progress import begin, done, end


def filter_here(dataset: Dataset, config: BuildConfig) -> list[Shard]:
    """Every shard as 01_filtered leaves it.

    Raises:
        SourceError: the source cannot be read.
        StoreError: the store refuses.
    """
    from vlmdata.filtering.close import find_close
    from vlmdata.filtering.duplicates import find_duplicates
    from vlmdata.filtering.look import look_at, to_look_at
    from vlmdata.filtering.pool import Terms
    from vlmdata.filtering.shards import filter_shard
    from vlmdata.ingest.listing import list_source
    from vlmdata.ingest.shards import AT_ONCE, ingest_shard
    from vlmdata.measure.facts import measure_shard
    from vlmdata.versions.version import newest_number, version_under

    at_once = AT_ONCE if config.source.kind == "urls" else None
    raw = each_here(Step.RAW, list_source(dataset, config), lambda shard: ingest_shard(dataset, shard, config), at_once)
    measured = each_here(Step.FACTS, raw, lambda shard: measure_shard(dataset, shard, config.filter))
    terms = Terms.of(config)
    before = version_under(dataset, terms.digest, newest_number(dataset))
    standing = before.standing if before else None
    if look := terms.look:
        close = find_close(dataset, measured, terms, standing)
        looked = each_here(
            Step.LOOKS, close, lambda shard: look_at(dataset, shard, look) if to_look_at(dataset, shard) else shard
        )
        measured = looked
    decided = find_duplicates(dataset, measured, terms, standing)
    return each_here(
        Step.FILTERED, decided, lambda shard: filter_shard(dataset, shard, config.filter, config.dedup, terms.opt_out)
    )


def with_own_captions_here(dataset: Dataset, config: BuildConfig) -> list[Shard]:
    """Every shard as 02_captioned leaves it if nobody is asked: pictures with the captions of their source.

    Raises:
        SourceError: the source cannot be read.
        StoreError: the store refuses.
    """
    from vlmdata.captioning.shards import caption_shard

    nobody = config.caption.model_copy(update={"policy": "none"})
    filtered = filter_here(dataset, config)
    return each_here(Step.CAPTIONED, filtered, lambda shard: caption_shard(dataset, shard, nobody))


def each_here(
    step: Step, shards: Sequence[Shard], make: Callable[[Shard], Shard], at_once: int | None = None
) -> list[Shard]:
    """A step of every shard on this process's threads, as many at once as there are cores, or `at_once`."""

    def one(shard: Shard) -> Shard:
        made = make(shard)
        done(step, shard.rows)
        return made

    begin(step, sum(shard.rows for shard in shards))
    with ThreadPoolExecutor(at_once or os.cpu_count()) as pool:
        made = list(pool.map(one, shards))
    end(step)
    return made
