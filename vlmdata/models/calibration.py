"""Which scores mean a match, for one model and language, found from matched against shuffled pairs.

LAION's 0.28 is a figure of OpenAI's CLIP ViT-B/32 on English captions; the same
cosine means something else from any other model. So every model brings a
calibration, and this is the code that finds one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmdata.errors import ConfigError
from vlmdata.models.source import model_identity, resolve

FILE_NAME = "calibration.json"
# Schuhmann et al. 2022 (LAION-5B) and DataComp's baselines: CLIP ViT-B/32 of OpenAI, English.
LAION_ACCEPT, LAION_REJECT = 0.28, 0.20
LAION_MODELS = frozenset({"ViT-B-32:openai", "ViT-B-32-quickgelu:openai"})
# The two errors that a band may make, as shares of the pairs they are made on.
MATCHED_REJECTED = 0.05
SHUFFLED_ACCEPTED = 0.05
DECIMALS = 4
Scores = NDArray[np.float32]


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
    """

    model: str
    language: str
    accept_above: float
    reject_below: float
    auc: float | None
    n: int
    note: str

    def save(self, path: Path) -> None:
        """Write as JSON; `calibration.json` beside a model's weights is found by itself."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            ConfigError: it is no such file, or its bands are upside down.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            calibration = cls(**{field.name: content[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"calibration: {path} is no calibration file ({error!r}); make it again") from error
        return calibration.checked(path)

    def checked(self, path: Path) -> Calibration:
        """Itself, if -1 <= reject_below <= accept_above <= 1."""
        bands = (self.reject_below, self.accept_above)
        if not all(isinstance(band, int | float) for band in bands) or not -1 <= bands[0] <= bands[1] <= 1:
            raise ConfigError(
                f"calibration: {path} has reject_below, accept_above = {bands};"
                " expected -1 <= reject_below <= accept_above <= 1"
            )
        return self


@dataclass(frozen=True)
class Bands:
    """What `calibrate` finds: two thresholds, and what they do to the pairs they were found on.

    Attributes:
        accept_above, reject_below: the bands.
        auc: chance that a matched pair outscores a shuffled one.
        n: matched pairs.
        matched_accepted, matched_rejected: shares of the matched pairs.
        shuffled_accepted, shuffled_rejected: shares of the shuffled pairs.
    """

    accept_above: float
    reject_below: float
    auc: float
    n: int
    matched_accepted: float
    matched_rejected: float
    shuffled_accepted: float
    shuffled_rejected: float

    def calibration(self, model: str, language: str, note: str) -> Calibration:
        """The bands with the names of what they belong to."""
        return Calibration(model, language, self.accept_above, self.reject_below, self.auc, self.n, note)


def calibrate(matched: Scores, shuffled: Scores) -> Bands:
    """Bands that seldom reject a right caption and seldom accept a wrong one.

    At most 5 % of the matched pairs score below `reject_below`, and at most 5 %
    of the shuffled ones score above `accept_above`. Where a good model leaves
    a gap between the two kinds, the gap is the middle band: what falls into it
    looks like neither. Shuffled pairs may match by chance (two flags), so their
    share is an upper bound.

    Args:
        matched: cosines (n,) of images with their own captions.
        shuffled: cosines (m,) of images with captions of other images.

    Raises:
        ConfigError: fewer than 20 pairs of either kind, or a score that is no number.
    """
    for name, scores in (("matched", matched), ("shuffled", shuffled)):
        if len(scores) < 20 or not np.isfinite(scores).all():
            raise ConfigError(f"calibration: {len(scores)} {name} scores; expected 20 or more, all finite")
    right = float(np.quantile(matched, MATCHED_REJECTED, method="lower"))
    wrong = float(np.quantile(shuffled, 1 - SHUFFLED_ACCEPTED, method="higher"))
    # Outward rounding keeps both promises.
    reject = _rounded(min(right, wrong), np.floor)
    accept = _rounded(max(right, wrong), np.ceil)
    return Bands(
        accept_above=accept,
        reject_below=reject,
        auc=round(auc(matched, shuffled), DECIMALS),
        n=len(matched),
        matched_accepted=_share(matched > np.float32(accept)),
        matched_rejected=_share(matched < np.float32(reject)),
        shuffled_accepted=_share(shuffled > np.float32(accept)),
        shuffled_rejected=_share(shuffled < np.float32(reject)),
    )


def pair_scores(images: Scores, texts: Scores, rounds: int = 10, seed: int = 0) -> tuple[Scores, Scores]:
    """Cosines of matched rows (n,), and of every image with `rounds` captions of others (n * rounds,).

    Args:
        images, texts: normalised embeddings (n, dim); row i of both belongs together.
        rounds: wrong captions an image; at most n - 1 are there.
        seed: of the shuffle; the same seed gives the same pairs.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    images, texts = images[order], texts[order]
    # Turning a shuffled row by less than a whole turn pairs nothing with itself.
    turns = range(1, min(rounds, len(images) - 1) + 1)
    shuffled = [np.einsum("nd,nd->n", images, np.roll(texts, turn, axis=0)) for turn in turns]
    return np.einsum("nd,nd->n", images, texts), np.concatenate(shuffled or [np.empty(0, np.float32)])


def auc(matched: Scores, shuffled: Scores) -> float:
    """Area under the ROC curve: the share of (matched, shuffled) couples in the right order, ties as half."""
    ordered = np.sort(shuffled)
    below = np.searchsorted(ordered, matched, "left") + np.searchsorted(ordered, matched, "right")
    return float(below.mean() / 2 / len(shuffled))


def thresholds_for(model: str, pretrained: str | None = None, language: str = "en") -> Calibration:
    """The calibration that belongs to a model: its own file, else LAION's figures with a note.

    A file is looked for beside the weights or in the model's folder:
    `calibration.LANGUAGE.json`, then a `calibration.json` of that language.

    Raises:
        ConfigError: a file is broken, or was made for other weights.
    """
    identity = model_identity(model, pretrained)
    folder = resolve(model, pretrained).folder
    for path in _candidates(folder, language):
        calibration = Calibration.load(path)
        if calibration.language == language:
            _check_owner(calibration, identity, path)
            return calibration
    return _laion(identity, language)


def _candidates(folder: Path | None, language: str) -> list[Path]:
    if folder is None:
        return []
    paths = [folder / f"calibration.{language}.json", folder / FILE_NAME]
    return [path for path in paths if path.is_file()]


def _check_owner(calibration: Calibration, identity: str, path: Path) -> None:
    # What stands before the @ is a folder's name, which may change.
    if calibration.model.rpartition("@")[2] != identity.rpartition("@")[2]:
        raise ConfigError(
            f"calibration: {path} is for {calibration.model}, the model is {identity};"
            " calibrate again, or give quality.accept_above and quality.reject_below"
        )


def _laion(identity: str, language: str) -> Calibration:
    source = "LAION's rule, found with OpenAI CLIP ViT-B/32 on English captions"
    if identity in LAION_MODELS and language == "en":
        note = source
    else:
        note = f"{source}; applied to {identity} in {language}, for which nothing was measured: calibrate it"
    return Calibration(identity, language, LAION_ACCEPT, LAION_REJECT, None, 0, note)


def _rounded(value: float, direction: Callable[[Any], Any]) -> float:
    scale = 10**DECIMALS
    return float(direction(value * scale) / scale)


def _share(of: NDArray[np.bool_]) -> float:
    return round(float(of.mean()), DECIMALS)
