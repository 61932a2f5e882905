"""Bounds for a model and a language, from a set's own captions: what `vlmdata calibrate` does.

Source captions alone are drawn, one an image: what a model wrote would tell
how well it agrees with another one. They are scored as stage 03 scores them,
from embeddings of the same checkpoints, rounded as those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import QualityConfig
from vlmdata.errors import ConfigError
from vlmdata.layout import Step
from vlmdata.measure.encoder import load_encoder
from vlmdata.measure.language import primary
from vlmdata.models.calibration import FEWEST, MATCHED_REJECTED, Bands, Calibration, calibrate
from vlmdata.quality.drawing import Draw, one_each, places
from vlmdata.quality.embeddings import column_vectors, drawn_vectors, vector_column
from vlmdata.quality.judges import Judge, judges, uncalibrated
from vlmdata.quality.languages import tell
from vlmdata.quality.matching import Matched, said_of, unit
from vlmdata.quality.trusted import trusted

SAMPLE = 5_000
KEEP = 1 - MATCHED_REJECTED


@dataclass(frozen=True)
class Report:
    """What a calibration found.

    Attributes:
        calibration: what goes into the file, the ROC curve and thresholds too.
        bands: the bounds, and what they do to the pairs they were found on.
        shuffled: wrong pairs measured.
        lost: images that were drawn and could not be embedded.
    """

    calibration: Calibration
    bands: Bands
    shuffled: int
    lost: int

    def save(self, path: Path) -> None:
        """Write the file that `quality.calibration` names.

        Raises:
            ConfigError: it cannot be written there.
        """
        self.calibration.save(path)

    def record(self) -> dict[str, Any]:
        """For JSON: everything."""
        found = {**asdict(self.bands), **asdict(self.calibration), "shuffled": self.shuffled, "lost": self.lost}
        return {**found, "sentence": self.lines()[0]}

    def lines(self) -> list[str]:
        """For the terminal."""
        bands, made = self.bands, self.calibration
        told = [
            f"{made.model}, captions in {made.language}: {bands.n:,} pairs against {self.shuffled:,} shuffled ones,"
            f" AUC {bands.auc:.3f}"
        ]
        told += [
            f"  {one.threshold:+.4f} keeps {one.keep:.0%} of the pairs, and lets {one.shuffled:.1%}"
            " of the shuffled ones through"
            for one in bands.thresholds
        ]
        told += [
            f"reject_below {bands.reject_below:+.4f}: {bands.matched_rejected:.1%} of the pairs,"
            f" {bands.shuffled_rejected:.1%} of the shuffled ones",
            f"accept_above {bands.accept_above:+.4f}: {bands.matched_accepted:.1%} of the pairs,"
            f" {bands.shuffled_accepted:.1%} of the shuffled ones",
        ]
        if made.gallery is not None:
            told.append(
                f"retrieval: galleries of {made.gallery:,} at most, as the model misses too many in larger ones"
            )
        if made.max_miss_rate is not None:
            told.append(f"  and a bound of {made.max_miss_rate:.0%} misses there, as half of them are the model's own")
        if self.lost:
            told.append(f"{self.lost:,} pictures could not be embedded")
        return told


def calibrated_judge(config: QualityConfig, language: str) -> Judge:
    """The judge whose bounds are to be found; no calibration need be there yet.

    Raises:
        ConfigError: no model of the config knows the language.
    """
    tag = primary(language)
    judge = judges(uncalibrated(config)).of(tag)
    if judge is None:
        raise ConfigError(
            f"calibrate: language {language!r} is known to none of the config's models; expected quality.model to know"
            f" it, or one under quality.languages: {{{tag}: {{model: …}}}}"
        )
    return judge


def check_wanted(sample: int, keep: float) -> None:
    """Refuse what no calibration can be made with.

    Raises:
        ConfigError: a share that is none, or too few images.
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"calibrate: keep = {keep}; expected a share over 0 and at most 1, such as {KEEP}")
    if sample < FEWEST:
        raise ConfigError(f"calibrate: sample = {sample}; expected {FEWEST} or more")


def calibrate_dataset(
    dataset: Dataset,
    shards: Sequence[Shard],
    config: QualityConfig,
    language: str,
    sample: int = SAMPLE,
    keep: float = KEEP,
) -> Report:
    """Bounds for captions in a language, from shards of 02_captioned.

    Drawn pictures are embedded a shard at a time; where they are most of a
    shard, all of it is, into the checkpoint that stage 03 reads. Memory holds
    one shard and the sample.

    Args:
        dataset, shards: what was captioned, by its source at least.
        config: names the judges.
        language: BCP 47 tag; its primary tag counts.
        sample: draw at most so many images.
        keep: share of right captions that is not to be rejected.

    Raises:
        ConfigError: no judge knows the language, no caption is in it, or too few are.
    """
    check_wanted(sample, keep)
    judge, tag = calibrated_judge(config, language), primary(language)
    drawn = _drawn(dataset, shards, tag, primary(config.unlabelled_language), sample)
    if drawn is None:
        raise ConfigError(
            f"calibrate: no source caption of {dataset.name} is in {tag}; expected {FEWEST} or more, one an image"
        )
    ids, pairs = _embedded(dataset, shards, judge, drawn, config.device)
    matched, shuffled = pairs.scores()
    if min(len(matched), len(shuffled)) < FEWEST:
        raise ConfigError(
            f"calibrate: {len(matched)} images with a caption in {tag} make {len(shuffled)} wrong pairs;"
            f" expected {FEWEST} or more of both: add images whose captions differ"
        )
    bands = calibrate(matched, shuffled, keep)
    note = f"{bands.n} images of {dataset.name} with their own captions in {tag}, by vlmdata calibrate"
    images, texts = unit(pairs.left), unit(pairs.right)
    found = trusted(ids, images, texts, pairs.wording, bands.accept_above, config.retrieval)
    made = bands.calibration(judge.identity, tag, note, sample=sample, **asdict(found))
    return Report(made, bands, len(shuffled), drawn.num_rows - len(pairs))


def _drawn(dataset: Dataset, shards: Sequence[Shard], tag: str, unlabelled: str, sample: int) -> pa.Table | None:
    """Columns place, id, caption_id, text and shard of the drawn images, one source caption each."""
    draw = Draw(sample)
    for shard in shards:
        captions = dataset.read(shard, Step.CAPTIONED, "captions", ["id", "caption_id", "text", "lang", "origin"])
        rows = captions.filter(pc.and_(pc.equal(captions["origin"], "source"), _may_be(captions["lang"], tag)))
        rows = rows.append_column("place", places(rows["id"].to_pylist()))
        # To tell a language takes longer than all the rest: only for those that have a chance.
        rows = rows.filter(draw.may_take(rows["place"]))
        told = tell(rows["lang"].to_pylist(), rows["text"].to_pylist(), unlabelled)
        mine = [one.language == tag and not one.contradicted for one in told]
        rows = one_each(rows.filter(pa.array(mine, pa.bool_())), "id")
        rows = rows.append_column("shard", pa.repeat(pa.scalar(shard.name), rows.num_rows))
        draw.offer(rows.select(["place", "id", "caption_id", "text", "shard"]))
    return draw.rows()


def _may_be(declared: pa.ChunkedArray, tag: str) -> pa.ChunkedArray:
    """Captions that declare the language, or none."""
    tags = [one for one in pc.unique(declared).to_pylist() if one is None or primary(one) == tag]
    return pc.is_in(declared, value_set=pa.array(tags, pa.string()))


def _embedded(
    dataset: Dataset, shards: Sequence[Shard], judge: Judge, drawn: pa.Table, device: str
) -> tuple[list[str], Matched]:
    """Ids and pairs of the drawn images that could be embedded, in the order of drawing."""
    vectors: dict[str, Any] = {}
    said: dict[str, frozenset[str]] = {}
    for shard in shards:
        mine = drawn.filter(pc.equal(drawn["shard"], shard.name))
        if mine.num_rows:
            ids = mine["id"].to_pylist()
            vectors.update(zip(ids, drawn_vectors(dataset, shard, judge, mine["id"], device), strict=True))
            captions = dataset.read(shard, Step.CAPTIONED, "captions", ["id", "text"])
            said.update(zip(ids, said_of(captions, ids), strict=True))
    rows = [row for row in drawn.select(["id", "text"]).to_pylist() if np.isfinite(vectors[row["id"]]).all()]
    ids, wording = [row["id"] for row in rows], [row["text"] for row in rows]
    texts = load_encoder(judge.model, judge.pretrained, device).texts(wording)
    images = np.array([vectors[one] for one in ids], np.float32).reshape(len(ids), texts.shape[1])
    # Rounded as a checkpoint rounds them.
    texts = column_vectors(pa.chunked_array([vector_column(texts)]))
    return ids, Matched(images, texts, wording, [said[one] for one in ids])
