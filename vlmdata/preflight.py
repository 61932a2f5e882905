"""What can be known to fail before anything is done."""

from __future__ import annotations

import importlib.util

from vlmdata.config import BuildConfig
from vlmdata.errors import ConfigError
from vlmdata.layout import Stage
from vlmdata.store import open_store


def preflight(config: BuildConfig) -> None:
    """Check store, models, engine and captioner, without loading a model or asking an API.

    Raises:
        UserError: the first that cannot work, in one line.
    """
    from vlmdata.captioning.links import check_images
    from vlmdata.captioning.money import check_money
    from vlmdata.captioning.questions import Asker
    from vlmdata.captioning.shards import check_caption_config
    from vlmdata.quality.judges import judges

    if config.engine == "ray" and importlib.util.find_spec("prefect_ray") is None:
        raise ConfigError("engine = 'ray': Ray is not installed; install vlmdata[ray], or choose threads or processes")
    check_caption_config(config.caption)
    check_money(config.caption)
    Asker.of(config.caption)
    judges(config.quality)
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
    from vlmdata.models import starter
    from vlmdata.quality.judges import judges

    if to < Stage.CHECKED:
        return
    bench = judges(config.quality)
    device = config.quality.device if config.engine == "threads" else "cpu"
    for judge in (bench.default, *bench.special.values()):
        if judge.model != starter.NAME:
            load_encoder(judge.model, judge.pretrained, device)
