"""From an export to a model."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed, Failed

from flows.engine import once
from tasks.training import report_training, train_model
from vlmdata.errors import VlmdataError
from vlmdata.training.config import TrainConfig


@flow(name="train", flow_run_name="train-{config.model}")
def train(config: TrainConfig) -> Any:
    """Train or fine-tune a CLIP-style model on an export; goes on from the newest checkpoint.

    Ends `Completed`, or failed with the name of the reason: ConfigError,
    SourceError, StoreError, Diverged.

    Args:
        config: The training: data, model, batch, stages, where it goes.
    """
    try:
        story: dict[str, Any] = once(train_model, config)
        once(report_training, story)
        return Completed(message=f"model in {story['model']}", data=story)
    except VlmdataError as error:
        return Failed(name=type(error).__name__, message=str(error))
