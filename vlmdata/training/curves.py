"""Curves of a training as a PNG: losses, rate, scale, gradients, retrieval. Needs matplotlib (`vlmdata[train]`)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from vlmdata.training.log import read_figures

CURVES = "curves.png"
_PANELS = (
    ("loss", ("loss_image_to_text", "loss_text_to_image")),
    ("learning rate", ("lr",)),
    ("logit scale", ("logit_scale",)),
    ("gradient norm", ("grad_norm_vision", "grad_norm_text")),
    ("alignment and uniformity", ("alignment", "uniformity_image", "uniformity_text")),
)
_RECALL = ("image_to_text_r1", "image_to_text_r10", "text_to_image_r1", "text_to_image_r10")


def draw_curves(out: Path) -> Path | None:
    """Draw what metrics.jsonl says; None if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_figures(out)
    figure = Figure(figsize=(12, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(2, 3).flat)
    steps = [line for line in lines if line["kind"] == "step"]
    for axis, (title, names) in zip(axes, _PANELS, strict=False):
        _panel(axis, title, names, steps)
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    _panel(axes[-1], "held-out retrieval", _RECALL, evaluations, marker="o")
    axes[-1].set_ylim(0, 1)
    target = out / CURVES
    figure.savefig(target, dpi=100, metadata={"Software": None})
    return target


def _panel(axis: Any, title: str, names: tuple[str, ...], lines: list[dict[str, Any]], **style: Any) -> None:
    for name in names:
        axis.plot(
            [line["step"] for line in lines], [line[name] for line in lines], label=name.replace("_", " "), **style
        )
    axis.set_title(title)
    axis.set_xlabel("step")
    axis.grid(alpha=0.3)
    if len(names) > 1:
        axis.legend(fontsize=8)
