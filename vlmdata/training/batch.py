"""The batch that the loss sees, and how it comes about."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vlmdata.errors import ConfigError
from vlmdata.training.config import SMALLEST_BATCH, TrainConfig


@dataclass(frozen=True)
class Batch:
    """`effective` = `per_device` x `devices` x `chunks`: so many pairs are set against each other.

    With more than one chunk embeddings are cached and gradients replayed
    (GradCache, arXiv 2101.06983), so the loss sees all of them. Gradients that
    are merely added up would see `per_device` pairs at a time; that is not offered.
    """

    per_device: int
    devices: int
    chunks: int

    @property
    def effective(self) -> int:
        """Pairs in the loss."""
        return self.per_device * self.devices * self.chunks

    @property
    def of_device(self) -> int:
        """Pairs of the effective batch that one device reads."""
        return self.per_device * self.chunks

    def as_dict(self) -> dict[str, int]:
        """For run.json and the card."""
        return {**asdict(self), "effective": self.effective}

    def __str__(self) -> str:
        return f"{self.per_device} per device x {self.devices} devices x {self.chunks} chunks = {self.effective}"


def batch_of(config: TrainConfig, devices: int) -> Batch:
    """How the asked effective batch is made up.

    Raises:
        ConfigError: it is too small, or no multiple of what the devices take at once.
    """
    at_once = config.batch_per_device * devices
    effective = config.effective_batch or at_once
    if effective % at_once:
        below, above = effective // at_once * at_once, (effective // at_once + 1) * at_once
        near = f"{below} or {above}" if below else f"{above}, or a smaller batch_per_device"
        raise ConfigError(
            f"effective_batch = {effective}: expected a multiple of batch_per_device x devices ="
            f" {config.batch_per_device} x {devices} = {at_once}, such as {near}"
        )
    if effective < SMALLEST_BATCH and not config.allow_small_batch:
        raise ConfigError(
            f"effective batch = {effective}: expected {SMALLEST_BATCH} or more, for a contrastive loss needs negatives;"
            f" set effective_batch (embeddings are cached, so memory stays that of {config.batch_per_device}),"
            " or allow_small_batch: true"
        )
    return Batch(config.batch_per_device, devices, effective // at_once)
