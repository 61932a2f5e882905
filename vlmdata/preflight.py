"""What can be known to fail before anything is done."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from vlmdata.config import BuildConfig
from vlmdata.errors import ConfigError
from vlmdata.layout import Stage, Step
from vlmdata.store import open_store

if TYPE_CHECKING:
    from vlmdata.checkpoint import Shard
    from vlmdata.runs import Run


def preflight(config: BuildConfig) -> None:
    """Check store, models, engine and captioner, without loading a model or asking an API.

    Raises:
        UserError: the first that cannot work, in one line.
    """
    from vlmdata.captioning.links import check_images
    from vlmdata.captioning.money import check_money
    from vlmdata.captioning.questions import askers
    from vlmdata.captioning.shards import check_caption_config
    from vlmdata.export.formats import check_formats
    from vlmdata.export.selection.check import check_selection
    from vlmdata.quality.judges import judges
    from vlmdata.quality.scorers import check_scorers

    if config.engine == "ray" and importlib.util.find_spec("prefect_ray") is None:
        raise ConfigError("engine = 'ray': Ray is not installed; install vlmdata[ray], or choose threads or processes")
    check_caption_config(config.caption)
    check_money(config.caption)
    askers(config.caption)
    judges(config.quality)
    check_scorers(config.quality)
    check_selection(config.export, config.quality)
    check_formats(config.export.formats)
    store = open_store(config.store)
    check_images(store, config.caption)
    store.check()


def fetch_models(config: BuildConfig, to: Stage) -> None:
    """Have the models that a build will need, before anything is paid for that they judge.

    `starter` is at hand. Others are loaded, which is the only sure way to know
    that their weights can be had and fit; where shards are threads, they stay loaded.

    Raises:
        ConfigError: the tag is unknown, or weights cannot be had or do not fit.
    """
    from vlmdata.measure.encoder import load_encoder
    from vlmdata.models.source import STARTERS
    from vlmdata.quality.judges import judges

    looks = config.dedup.confirm is not None and to >= Stage.FILTERED
    if to < Stage.CHECKED and not looks:
        return
    bench = judges(config.quality)
    needed = (bench.default, *(bench.special.values() if to >= Stage.CHECKED else ()))
    device = config.quality.device if config.engine == "threads" else "cpu"
    for judge in needed:
        if judge.model not in STARTERS:
            load_encoder(judge.model, judge.pretrained, device)


def load_ahead(config: BuildConfig, run: Run, listing: Sequence[Shard], to: Stage) -> None:
    """Begin to load the judges' models beside the first stages, if this process will need them.

    That takes seconds of one core, while the first stages wait for a disk, a server and each other.
    """
    if to < Stage.CHECKED or config.engine != "threads" or _are_scored(run, listing):
        return
    # Imported here, alone: two threads that import torch and numba at once have met modules half made.
    importlib.import_module("vlmdata.filtering.hamming_kernels")
    ahead = ThreadPoolExecutor(1, thread_name_prefix="load-models")
    # What goes wrong in it goes wrong again, and is said, when the first shard is scored.
    ahead.submit(_load_judges, config)
    ahead.shutdown(wait=False)


def _are_scored(run: Run, listing: Sequence[Shard]) -> bool:
    """Whether the run before had the same pictures, and scored them."""
    before = run.parent
    scored = before.stage(Stage.CHECKED) if before else None
    known = {shard.manifests.get(Step.LISTING) for shard in scored.shards} if scored else set()
    return all(shard.manifests[Step.LISTING] in known for shard in listing)


def _load_judges(config: BuildConfig) -> None:
    from vlmdata.measure.encoder import load_encoder
    from vlmdata.quality.judges import judges

    bench = judges(config.quality)
    for judge in (bench.default, *bench.special.values()):
        load_encoder(judge.model, judge.pretrained, config.quality.device)
