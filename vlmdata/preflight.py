"""What can be known to fail before anything is done."""

from __future__ import annotations

import importlib.util

from vlmdata.config import BuildConfig
from vlmdata.errors import ConfigError
from vlmdata.store import open_store


def preflight(config: BuildConfig) -> None:
    """Check store, models, engine and captioner, without loading a model or asking an API.

    Raises:
        UserError: the first that cannot work, in one line.
    """
    from vlmdata.captioning.shards import check_caption_config
    from vlmdata.quality.judges import judges

    if config.engine == "ray" and importlib.util.find_spec("prefect_ray") is None:
        raise ConfigError("engine = 'ray': Ray is not installed; install vlmdata[ray], or choose threads or processes")
    check_caption_config(config.caption)
    judges(config.quality)
    open_store(config.store).check()
