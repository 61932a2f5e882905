"""03_quality_checked: every caption scores above the accept bound in force, and every sample has one that does."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from expectations.columns import some_of
from expectations.rule import Rule, breaking, none_may
from expectations.sets import without
from vlmdata.config import BuildConfig
from vlmdata.quality.judges import judges
from vlmdata.schema import CHECKED, JUDGED_CAPTIONS

SAMPLES = some_of(CHECKED, "id")
CAPTIONS = some_of(JUDGED_CAPTIONS, "id", "score", "language")


def rules(samples: pa.Table, captions: pa.Table, config: BuildConfig) -> list[Rule]:
    """The rules of the stage; compared as the bands are, float32 with float32."""
    may_be_unjudged = config.quality.unverified_languages == "export"
    bound, score = _bounds(captions["language"], config), captions["score"]
    unjudged = pc.and_(pc.and_(pc.is_null(bound), pc.is_null(score)), may_be_unjudged)
    known = captions["id"].filter(pc.or_(pc.is_valid(score), unjudged))
    above = pc.or_(pc.fill_null(pc.greater(score, bound), False), unjudged)
    return [
        none_may(
            "scored",
            "every sample has a caption with a score" + (", or one that nobody can judge" if may_be_unjudged else ""),
            "samples_without_score",
            without(samples["id"], known, "no score"),
        ),
        none_may(
            "above_accept_bound",
            "every caption scores above the accept bound of its judge",
            "captions_not_above_bound",
            breaking(captions["id"], above, score, "captions"),
        ),
    ]


def _bounds(languages: pa.ChunkedArray, config: BuildConfig) -> pa.Array:
    """The accept bound of each caption, float32; null where nobody judges its language."""
    bench = judges(config.quality)
    encoded = languages.combine_chunks().dictionary_encode()
    found = [bench.of(tag) for tag in encoded.dictionary.to_pylist()]
    bounds = pa.array([None if judge is None else judge.accept_above for judge in found], pa.float32())
    return bounds.take(encoded.indices)
