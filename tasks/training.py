"""A training: one library call, and what it shows in Prefect."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks.job import named_failures
from vlmdata.training import train as training
from vlmdata.training.card import card
from vlmdata.training.config import TrainConfig
from vlmdata.training.curves import CURVES


@task(name="train-model", cache_policy=NO_CACHE)
@named_failures
def train_model(config: TrainConfig) -> dict[str, Any]:
    """Train from the newest checkpoint, if there is one; returns run.json."""
    return training.train(config)


@task(name="report-training", cache_policy=NO_CACHE)
@named_failures
def report_training(story: dict[str, Any]) -> None:
    """Card and curves, as artifacts."""
    key = f"training-{story['run']}"
    create_markdown_artifact(key=key, markdown=card(story), description="How good the model is, and what made it")
    curves = Path(story["config"]["out"]) / CURVES
    if curves.is_file():
        # In the artifact itself: a browser reaches no folder.
        picture = b64encode(curves.read_bytes()).decode()
        create_image_artifact(key=f"{key}-curves", image_url=f"data:image/png;base64,{picture}", description="Curves")
    for warning in story["warnings"]:
        get_run_logger().warning(warning)
