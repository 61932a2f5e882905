"""02_captioned: every sample that goes on has a caption."""

from __future__ import annotations

import pyarrow as pa

from expectations.columns import some_of
from expectations.rule import Rule, none_may
from expectations.sets import without
from vlmdata.config import BuildConfig
from vlmdata.schema import CAPTIONS as WHOLE_CAPTIONS
from vlmdata.schema import FILTERED

SAMPLES = some_of(FILTERED, "id")
CAPTIONS = some_of(WHOLE_CAPTIONS, "id")


def rules(samples: pa.Table, captions: pa.Table, config: BuildConfig) -> list[Rule]:
    """The rules of the stage."""
    figure = without(samples["id"], captions["id"], "no caption")
    return [none_may("captioned", "every sample has a caption", "samples_without_caption", figure)]
