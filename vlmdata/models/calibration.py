"""Which scores mean a match, for one model and language, found from matched against shuffled pairs.

LAION's 0.28 is a figure of OpenAI's CLIP ViT-B/32 on English captions; the same
cosine means something else from any other model. So every model brings a
calibration, and this is the code that finds one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from vlmdata.errors import ConfigError
from vlmdata.models.roc import DECIMALS, Kept, RocPoint, Scores, auc, kept, roc, rounded, share
from vlmdata.models.source import model_identity, resolve

__all__ = ["Bands", "Calibration", "auc", "calibrate", "pair_scores", "thresholds_for"]

FILE_NAME = "calibration.json"
# Schuhmann et al. 2022 (LAION-5B) and DataComp's baselines: CLIP ViT-B/32 of OpenAI, English.
LAION_ACCEPT, LAION_REJECT = 0.28, 0.20
LAION_MODELS = frozenset({"ViT-B-32:openai", "ViT-B-32-quickgelu:openai"})
FEWEST = 20
"""Pairs of either kind below which no band is found."""
# The two errors that a band may make, as shares of the pairs they are made on.
MATCHED_REJECTED = 0.05
SHUFFLED_ACCEPTED = 0.05
TOLD_SHARES = (0.90, 0.95, 0.99)
"""Of matched pairs: what keeps so many is told, whatever is chosen."""
Rows = NDArray[np.int64]
Alike = Callable[[Rows, Rows], NDArray[np.bool_]]
"""Given n rows, and n others: whether the text of each other would be right for the image of its row too."""


@dataclass(frozen=True)
class Calibration:
    """The bands of one model in one language.

    Attributes:
        model: identity of the model, as `model_identity` gives it.
        language: BCP-47 tag of the captions that the bands were found on.
        accept_above, reject_below: cosines; between them a caption is held.
        auc: chance that a matched pair outscores a shuffled one; None if it was not measured here.
        n: matched pairs measured; 0 for bands taken over from elsewhere.
        note: where the bands come from, or a warning that they are another model's.
        keep: the share of matched pairs that `reject_below` was to keep; None: not known.
        sample: the most pairs that were to be drawn; None: not known.
        gallery: images in the largest gallery that the model can be trusted to search; None: not known.
        max_miss_rate: bound of the retrieval check in that gallery, if the model needs a wider one.
        thresholds: what keeps 90, 95 and 99 % of matched pairs.
        roc: the curve, at most 200 points.
    """

    model: str
    language: str
    accept_above: FiniteFloat
    reject_below: FiniteFloat
    auc: FiniteFloat | None
    n: int
    note: str
    keep: FiniteFloat | None = None
    sample: int | None = None
    gallery: int | None = None
    max_miss_rate: FiniteFloat | None = None
    thresholds: tuple[Kept, ...] = ()
    roc: tuple[RocPoint, ...] = ()

    @property
    def borrowed(self) -> bool:
        """Whether the bands are another model's, or another language's."""
        return self.n == 0 and not (self.model in LAION_MODELS and self.language == "en")

    def save(self, path: Path) -> None:
        """Write as JSON, a field a line; `calibration.json` beside a model's weights is found by itself.

        Raises:
            ConfigError: it cannot be written there.
        """
        lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in asdict(self).items()]
        try:
            path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"calibration: {path} cannot be written ({error.strerror}); give another file") from error

    @staticmethod
    def check_place(path: Path) -> None:
        """Refuse a place that nothing can be written to, before there is anything to write.

        Raises:
            ConfigError: it is a folder, or none that one may write in.
        """
        try:
            writable = not path.is_dir() and os.access(path if path.exists() else path.parent, os.W_OK)
        except OSError:
            writable = False
        if not writable:
            raise ConfigError(f"calibration: {path} cannot be written; give another file")

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote; the fields that have a default may be missing.

        Raises:
            ConfigError: it is no such file, or its bands are upside down.
        """
        try:
            calibration = _file_format().validate_json(path.read_bytes(), strict=True)
        except (OSError, ValidationError) as error:
            raise ConfigError(f"calibration: {path} is no calibration file ({_why(error)}); make it again") from error
        return calibration.checked(path)

    def checked(self, path: Path) -> Calibration:
        """Itself, if -1 <= reject_below <= accept_above <= 1, its gallery holds somebody, and its bound is a share."""
        if not -1 <= self.reject_below <= self.accept_above <= 1:
            raise ConfigError(
                f"calibration: {path} has reject_below, accept_above = {self.reject_below}, {self.accept_above};"
                " expected -1 <= reject_below <= accept_above <= 1"
            )
        if self.gallery is not None and self.gallery < 10:
            raise ConfigError(f"calibration: {path} has gallery = {self.gallery}; expected 10 or more, or null")
        if self.max_miss_rate is not None and not 0 < self.max_miss_rate <= 1:
            raise ConfigError(
                f"calibration: {path} has max_miss_rate = {self.max_miss_rate}; expected a share over 0, or null"
            )
        return self

    def check_owner(self, identity: str, path: Path) -> None:
        """Refuse bands that were found with other weights.

        Raises:
            ConfigError: `identity` is another model.
        """
        # What stands before the @ is a folder's name, which may change.
        if self.model.rpartition("@")[2] != identity.rpartition("@")[2]:
            raise ConfigError(
                f"calibration: {path} is for {self.model}, the model is {identity};"
                " calibrate again, or give quality.accept_above and quality.reject_below"
            )


@cache
def _file_format() -> TypeAdapter[Calibration]:
    return TypeAdapter(Calibration)


def _why(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return str(error.strerror)
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join([*(str(part) for part in first["loc"]), first["msg"]])


@dataclass(frozen=True)
class Bands:
    """What `calibrate` finds: two thresholds, and what they do to the pairs they were found on.

    Attributes:
        accept_above, reject_below: the bands.
        auc: chance that a matched pair outscores a shuffled one.
        n: matched pairs.
        matched_accepted, matched_rejected: shares of the matched pairs.
        shuffled_accepted, shuffled_rejected: shares of the shuffled pairs.
        keep: the share of matched pairs that is to be kept.
        thresholds: what keeps 90, 95 and 99 % of matched pairs, and `keep` of them.
        roc: the curve.
    """

    accept_above: float
    reject_below: float
    auc: float
    n: int
    matched_accepted: float
    matched_rejected: float
    shuffled_accepted: float
    shuffled_rejected: float
    keep: float
    thresholds: tuple[Kept, ...]
    roc: tuple[RocPoint, ...]

    def calibration(
        self,
        model: str,
        language: str,
        note: str,
        *,
        sample: int | None = None,
        gallery: int | None = None,
        max_miss_rate: float | None = None,
    ) -> Calibration:
        """The bands with the names of what they belong to."""
        return Calibration(
            model=model,
            language=language,
            accept_above=self.accept_above,
            reject_below=self.reject_below,
            auc=self.auc,
            n=self.n,
            note=note,
            keep=self.keep,
            sample=sample,
            gallery=gallery,
            max_miss_rate=max_miss_rate,
            thresholds=self.thresholds,
            roc=self.roc,
        )


def calibrate(matched: Scores, shuffled: Scores, keep: float = 1 - MATCHED_REJECTED) -> Bands:
    """Bands that seldom reject a right caption and seldom accept a wrong one.

    `reject_below` keeps at least `keep` of the matched pairs, 95 % if nobody
    says otherwise, and at most 5 % of the shuffled ones score above
    `accept_above`. Where a good model leaves a gap between the two kinds, the
    two thresholds would cross: then each takes the other's place, both promises
    hold all the more, and the gap is the middle band: what falls into it looks
    like neither. Shuffled pairs may match by chance (two flags), so their share
    is an upper bound.

    Args:
        matched: cosines (n,) of images with their own captions.
        shuffled: cosines (m,) of images with captions of other images.
        keep: share of the matched pairs, over 0 and at most 1.

    Raises:
        ConfigError: fewer than 20 pairs of either kind, or a score that is no number.
    """
    for name, scores in (("matched", matched), ("shuffled", shuffled)):
        if len(scores) < FEWEST or not np.isfinite(scores).all():
            raise ConfigError(f"calibration: {len(scores)} {name} scores; expected {FEWEST} or more, all finite")
    # The last bit of a cosine may be over 1.
    matched, shuffled = np.clip(matched, -1, 1), np.clip(shuffled, -1, 1)
    right = float(np.quantile(matched, 1 - keep, method="lower"))
    wrong = float(np.quantile(shuffled, 1 - SHUFFLED_ACCEPTED, method="higher"))
    # Outward rounding keeps both promises.
    reject = rounded(min(right, wrong), math.floor)
    accept = rounded(max(right, wrong), math.ceil)
    return Bands(
        accept_above=accept,
        reject_below=reject,
        auc=round(auc(matched, shuffled), DECIMALS),
        n=len(matched),
        matched_accepted=share(matched > np.float32(accept)),
        matched_rejected=share(matched < np.float32(reject)),
        shuffled_accepted=share(shuffled > np.float32(accept)),
        shuffled_rejected=share(shuffled < np.float32(reject)),
        keep=keep,
        thresholds=tuple(kept(matched, shuffled, one) for one in sorted({*TOLD_SHARES, keep})),
        roc=roc(matched, shuffled),
    )


def pair_scores(
    images: Scores, texts: Scores, rounds: int = 10, seed: int = 0, alike: Alike | None = None
) -> tuple[Scores, Scores]:
    """Cosines of matched rows (n,), and of every image with `rounds` captions of others (at most n * rounds,).

    Args:
        images, texts: normalised embeddings (n, dim); row i of both belongs together.
        rounds: wrong captions an image; at most n - 1 are there.
        seed: of the shuffle; the same seed gives the same pairs.
        alike: which of the shuffled pairs are right all the same; those are left out.
    """
    rows = np.random.default_rng(seed).permutation(len(images)).astype(np.int64)
    shuffled = [np.empty(0, np.float32)]
    # Turning a shuffled row by less than a whole turn pairs nothing with itself.
    for turn in range(1, min(rounds, len(images) - 1) + 1):
        others = np.roll(rows, turn)
        scores = np.einsum("nd,nd->n", images[rows], texts[others])
        shuffled.append(scores if alike is None else scores[~alike(rows, others)])
    return np.einsum("nd,nd->n", images[rows], texts[rows]), np.concatenate(shuffled)


def thresholds_for(model: str, pretrained: str | None = None, language: str = "en") -> Calibration:
    """The calibration that belongs to a model: its own for the language, else LAION's figures with a note.

    Raises:
        ConfigError: a file of the model's is broken, or was made for other weights.
    """
    own = own_calibrations(model, pretrained).get(language)
    return own or _laion(model_identity(model, pretrained), language)


def own_calibrations(model: str, pretrained: str | None = None) -> dict[str, Calibration]:
    """What lies beside a model's weights, by language: `calibration.json`, and before it `calibration.LANGUAGE.json`.

    Raises:
        ConfigError: a file is broken, or was made for other weights.
    """
    folder = resolve(model, pretrained).folder
    if folder is None:
        return {}
    paths = [folder / FILE_NAME, *sorted(folder.glob("calibration.*.json"))]
    found = [calibration_in(path, model, pretrained) for path in paths if path.is_file()]
    return {calibration.language: calibration for calibration in found}


def calibration_in(path: Path, model: str, pretrained: str | None = None) -> Calibration:
    """The calibration in a file, which must be this model's.

    Raises:
        ConfigError: it is not there, broken, or was made for other weights.
    """
    calibration = Calibration.load(path)
    calibration.check_owner(model_identity(model, pretrained), path)
    return calibration


def _laion(identity: str, language: str) -> Calibration:
    source = "LAION's rule, found with OpenAI CLIP ViT-B/32 on English captions"
    if identity in LAION_MODELS and language == "en":
        note = source
    else:
        note = f"{source}; applied to {identity} in {language}, for which nothing was measured: calibrate it"
    return Calibration(identity, language, LAION_ACCEPT, LAION_REJECT, None, 0, note)
