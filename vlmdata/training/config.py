"""What a training's config may say: every key, its default and its bounds."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from vlmdata.config import OPERATIONAL, Section
from vlmdata.config_reading import Kind
from vlmdata.errors import ConfigError

SMALLEST_BATCH = 256
"""A contrastive loss tells a pair from the others of its batch; with fewer, it learns little from them."""
WARMUP = (0.05, 0.10)
"""Shares of a stage's steps that its warmup may take."""
LAST_RATE = 1e-6
"""What every stage's rate falls to."""
VISION_SHARE = 0.1
"""Of the base rate: at which a vision tower is unfrozen that knew something before."""


def _warmup(share: float) -> float:
    low, high = WARMUP
    if not low <= share <= high:
        raise ValueError(
            f"a share of the steps from {low:.2f} to {high:.2f}: a shorter warmup lets the first, noisy steps undo"
            " what the weights know, a longer one wastes steps at rates that teach little"
        )
    return share


def _square_crops(scale: tuple[float, float]) -> tuple[float, float]:
    if scale[0] > scale[1]:
        raise ValueError("two shares of a picture's area, the smaller one first")
    return scale


AreaShare = Annotated[float, Field(gt=0, le=1)]


class StageConfig(Section):
    """Some epochs in which certain parts of the model learn; `logit_scale` always does."""

    epochs: PositiveInt = Field(description="Epochs of this stage.")
    vision: Literal["frozen", "projection", "trained"] = Field(
        default="frozen", description="What learns of the vision tower: nothing, its last projection, or all of it."
    )
    text: Literal["frozen", "projection", "lora", "trained"] = Field(
        default="trained", description="What learns of the text tower; lora: adapters of low rank (vlmdata[train])."
    )
    base_lr: PositiveFloat | None = Field(
        default=None,
        description="Its highest rate; null: base_lr, or a tenth of it where a pretrained vision tower learns.",
    )

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if self.vision == "frozen" and self.text == "frozen":
            raise ValueError("a stage in which a tower learns: set vision or text to something else than frozen")
        return self


class EvaluationConfig(Section):
    """How a model is measured after each epoch; in galleries of a fixed size, so that figures can be compared."""

    gallery: int = Field(default=1_000, ge=10, description="Pictures in a gallery; fewer only if the split has fewer.")
    galleries: PositiveInt = Field(default=5, description="At most so many are drawn.")


class AlignmentConfig(Section):
    """For data that no export's gate has seen: whether captions fit their pictures is measured first."""

    model: str = Field(default="ViT-B-32", description="The model that judges, as in quality.model.")
    pretrained: str | None = Field(default="openai", description="As in quality.pretrained.")
    sample: PositiveInt = Field(default=1_000, description="Pairs that are looked at, at most.")
    max_misaligned: float = Field(
        default=0.20, ge=0, le=1, description="A larger share of pairs below the model's bound is refused; 1: none is."
    )


class LoraConfig(Section):
    """Adapters of the text tower, for stages of `text: lora`."""

    rank: PositiveInt = Field(default=8, description="Rank of an adapter.")
    alpha: PositiveInt = Field(default=16, description="Scale of an adapter, over its rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before an adapter.")


class TrainConfig(Section):
    """A training, from data to a folder of checkpoints, log and card."""

    data: str = Field(
        description="An export's folder or s3:// URL, or another folder or URL of WebDataset tars.",
        json_schema_extra=OPERATIONAL,  # what it holds decides, wherever it lies
    )
    out: str = Field(description="Folder of checkpoints, log and card.", json_schema_extra=OPERATIONAL)
    model: str = Field(description="starter, starter-multilingual, an open_clip name, hf-hub:…, or a folder.")
    pretrained: str | None = Field(
        default=None,
        description="A tag, a weights file, or bridge: a starter's projections anew; null: what is there, or new ones.",
    )
    batch_per_device: PositiveInt = Field(
        default=64, description="Pairs that go through the model at once, on each device."
    )
    effective_batch: PositiveInt | None = Field(
        default=None,
        description="Pairs set against each other: batch_per_device x devices x chunks; null: one chunk.",
    )
    allow_small_batch: bool = Field(
        default=False, description=f"Allow an effective batch under {SMALLEST_BATCH}.", json_schema_extra=OPERATIONAL
    )
    epochs: PositiveInt | None = Field(default=None, description="Epochs of the one stage, where no stages are named.")
    epoch_steps: PositiveInt | None = Field(
        default=None, description="Steps that count as an epoch, whatever the data's size; null: all of it once."
    )
    base_lr: PositiveFloat = Field(default=1e-4, description="Highest learning rate.")
    warmup: Annotated[float, AfterValidator(_warmup)] = Field(
        default=0.08, description="Share of a stage's steps in which the rate rises to its highest."
    )
    stages: tuple[StageConfig, ...] = Field(
        default=(),
        description="One after the other; none: one stage, in which the text tower of a pretrained model learns, or all"
        " of a new one.",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto", description="auto: bf16 autocast where the device is fast in it. The loss is in fp32 always."
    )
    seed: NonNegativeInt = Field(default=0, le=2**31 - 1, description="Decides order, crops, captions and new weights.")
    loss: Literal["clip", "siglip"] = Field(default="clip", description="Softmax over the batch, or a sigmoid a pair.")
    weight_decay: NonNegativeFloat = Field(default=0.1, description="AdamW's, of matrices.")
    projection_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the vision tower's features that a projection which learns is not shown, at random.",
    )
    max_grad_norm: PositiveFloat = Field(default=1.0, description="Gradients are scaled down to this norm.")
    gradient_checkpointing: bool | None = Field(
        default=None, description="Compute activations twice instead of keeping them; null: over 1 B parameters."
    )
    crop_scale: Annotated[tuple[AreaShare, AreaShare], AfterValidator(_square_crops)] = Field(
        default=(0.5, 1.0), description="Shares of a picture's area that square crops take."
    )
    flip: bool = Field(
        default=True, description="Mirror half of the pictures, never one whose captions say left or right."
    )
    caption_weights: dict[str, NonNegativeFloat] = Field(
        default_factory=dict,
        description="How often a caption is drawn, by language ({en: 1, de: 0.5}); * is every other; empty: alike.",
    )
    validation_share: float = Field(
        default=0.05, gt=0, lt=1, description="Held out by a hash of the sample's id, where the data has no splits."
    )
    shuffle_buffer: PositiveInt = Field(default=10_000, description="Samples that are shuffled among each other.")
    max_imbalance: PositiveFloat = Field(
        default=0.25,
        description="A larger difference of the two losses, over their mean, is warned of.",
        json_schema_extra=OPERATIONAL,
    )
    interpolation: str | None = Field(
        default=None, description="What you expect the model to resize with; another one is refused; null: do not care."
    )
    mean: tuple[float, float, float] | None = Field(default=None, description="Expected of the model, likewise.")
    std: tuple[float, float, float] | None = Field(default=None, description="Expected of the model, likewise.")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    alignment: AlignmentConfig = Field(default_factory=AlignmentConfig)
    lora: LoraConfig = Field(default_factory=LoraConfig)
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU if there is one.", json_schema_extra=OPERATIONAL
    )
    workers: NonNegativeInt | None = Field(
        default=None,
        description="Processes that decode, a device; null: a core each, 8 at most.",
        json_schema_extra=OPERATIONAL,
    )
    checkpoint_every: PositiveInt = Field(
        default=500,
        description="Steps between checkpoints; there is one after each epoch, too.",
        json_schema_extra=OPERATIONAL,
    )
    keep_checkpoints: PositiveInt = Field(
        default=2, description="The newest so many stay.", json_schema_extra=OPERATIONAL
    )
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        default=("tensorboard",), description="Where metrics go besides metrics.jsonl.", json_schema_extra=OPERATIONAL
    )

    def settings(self) -> dict[str, Any]:
        """Where nothing is hidden, a training is the one that it was when nothing could be."""
        unsaid = set() if self.projection_dropout else {"projection_dropout"}
        return {name: value for name, value in super().settings().items() if name not in unsaid}

    @model_validator(mode="after")
    def _epochs_once(self) -> Self:
        total = sum(stage.epochs for stage in self.stages)
        if not self.stages and self.epochs is None:
            raise ValueError("epochs, or stages that have their own")
        if self.stages and self.epochs not in (None, total):
            raise ValueError(f"epochs = {self.epochs}, but its stages have {total} together: leave epochs out")
        return self


TRAIN = Kind(
    TrainConfig,
    keys="data, model and out",
    example="base_lr=1e-4",
    paths=(("data",), ("out",)),
    names_or_paths=(("model",), ("pretrained",), ("alignment", "model"), ("alignment", "pretrained")),
    start="or start from a preset: vlmdata train --preset NAME --data DATA --out OUT",
)
"""How a training's config is read."""


def presets() -> list[str]:
    """Names of the configs that ship."""
    return sorted(path.name.removesuffix(".yaml") for path in _presets().iterdir() if path.name.endswith(".yaml"))


def load_preset(name: str, overrides: Iterable[str]) -> TrainConfig:
    """A config that ships, with what it leaves to be said: data, out.

    Raises:
        ConfigError: no such preset, or a key is missing or wrong.
    """
    if name not in presets():
        raise ConfigError(f"--preset {name!r}: expected one of {', '.join(presets())}")
    raw = yaml.safe_load(_presets().joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    return TRAIN.parse(raw, overrides, where=f"preset {name}")


def _presets() -> Traversable:
    return files("vlmdata").joinpath("training/presets")
