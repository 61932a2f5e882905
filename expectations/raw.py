"""00_raw: every sample names its bytes."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from expectations.columns import some_of
from expectations.rule import Rule, breaking, none_may
from vlmdata.config import BuildConfig
from vlmdata.schema import SAMPLES as WHOLE

SAMPLES = some_of(WHOLE, "id", "sha256")
CAPTIONS = pa.schema([])


def rules(samples: pa.Table, captions: pa.Table, config: BuildConfig) -> list[Rule]:
    """The rules of the stage."""
    digests = samples["sha256"]
    figure = breaking(samples["id"], pc.match_substring_regex(digests, "^[0-9a-f]{64}$"), digests)
    return [none_may("sha256", "sha256 is 64 hex digits", "samples_without_sha256", figure)]
