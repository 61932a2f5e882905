"""Data that no export's gate has seen: how many of its captions do not fit their pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from vlmdata.errors import SourceError
from vlmdata.measure.encoder import load_encoder
from vlmdata.models.calibration import thresholds_for
from vlmdata.quality.recall import wilson
from vlmdata.training.config import AlignmentConfig, TrainConfig
from vlmdata.training.loading import Pairs
from vlmdata.training.samples import TRAIN

_UNLABELLED = "en"


def check_alignment(config: TrainConfig, pairs: Pairs) -> str:
    """Score a sample of the training pairs; returns a sentence with the share that is misaligned.

    A pair is misaligned if its CLIPScore is below what the judging model's
    calibration rejects; captions of languages that it does not know are not judged.

    Raises:
        SourceError: more are than `alignment.max_misaligned`.
        ConfigError: the judging model cannot be had.
    """
    terms = config.alignment
    judged = list(_scores(config, pairs))
    judge = f"{terms.model}{':' + terms.pretrained if terms.pretrained else ''}"
    if not judged:
        return f"Warning: alignment: no caption is in a language that {judge} knows, so none was judged"
    low = sum(score < bound for score, bound in judged)
    share = low / len(judged)
    least, most = wilson(low, len(judged))
    interval = f"{least:.1%} to {most:.1%}"
    told = f"{low:,} of {len(judged):,} pairs that {judge} looked at are misaligned: {share:.1%} ({interval})"
    if share > terms.max_misaligned:
        raise SourceError(
            f"data: {told}, more than alignment.max_misaligned = {terms.max_misaligned:g}, and such pairs spoil a model"
            " silently; build a set of it with `vlmdata build`, or raise that bound"
        )
    return f"alignment: {told}"


def _scores(config: TrainConfig, pairs: Pairs) -> Iterator[tuple[float, float]]:
    """CLIPScore and bound of each pair that can be judged."""
    terms, table = config.alignment, pairs.samples.table
    encoder = load_encoder(terms.model, terms.pretrained, config.device)
    rows = pairs.samples.rows(TRAIN)
    drawn = np.random.default_rng(config.seed).permutation(rows)[: terms.sample]
    found = [(int(row), *_known(table, int(row), encoder.languages)) for row in np.sort(drawn)]
    found = [one for one in found if one[1]]
    texts = encoder.texts([caption for _, caption, _ in found])
    prepared = encoder.pictures([row for row, _, _ in found], lambda row: encoder.prepare(pairs.image(row))[np.newaxis])
    images = np.concatenate([np.empty((0, 1, encoder.dim), np.float32), *prepared])[:, 0]
    bounds = {language: _bound(terms, language) for language in {language for _, _, language in found}}
    for score, (_, _, language) in zip((images * texts).sum(axis=1), found, strict=True):
        yield float(score), bounds[language]


def _known(table: pa.Table, row: int, languages: frozenset[str]) -> tuple[str, str]:
    """The first caption in a language that the judge knows, and the language; empty if there is none."""
    captions, tags = (table[name][row].as_py() for name in ("captions", "languages"))
    for caption, tag in zip(captions, tags, strict=True):
        language = (tag or _UNLABELLED).split("-")[0]
        if language in languages:
            return caption, language
    return "", ""


def _bound(terms: AlignmentConfig, language: str) -> float:
    return float(np.float32(thresholds_for(terms.model, terms.pretrained, language).reject_below))
