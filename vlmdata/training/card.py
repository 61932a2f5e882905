"""What a finished training tells: a few lines for the terminal, a card beside the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WAYS = {"image_to_text": "image → text", "text_to_image": "text → image"}


def as_lines(story: dict[str, Any]) -> list[str]:
    """For the terminal: how good the model is, and where it lies."""
    last = story["evaluations"][-1]
    lines = [f"{way}: {_recall(last, name)}" for name, way in WAYS.items()]
    return [
        f"Trained {story['steps']:,} steps, {batch(story)}; {last['image_to_text_n']:,} pictures were held out.",
        *lines,
        f"Model: {story['model']}",
        f"Log and curves: {story['config']['out']}",
    ]


def batch(story: dict[str, Any]) -> str:
    """How the effective batch came about."""
    of = story["batch"]
    made = f"{of['per_device']} per device × {of['devices']} devices × {of['chunks']} chunks"
    return f"effective batch {of['effective']} ({made})"


def card(story: dict[str, Any]) -> str:
    """README.md of a training, in Markdown."""
    data = story["data"]
    rows = [
        f"| {row['epoch']} | {row['step']} | " + " | ".join(_recall(row, way) for way in WAYS) + " |"
        for row in story["evaluations"]
    ]
    return "\n".join(
        [
            f"# {_plain(story['config']['model'])}, trained on {_plain(data['dataset'] or data['manifest_hash'])}",
            "",
            "R@1 / R@5 / R@10 on held-out pictures after each epoch; in brackets the 95 % interval of R@10.",
            "",
            "| epoch | steps | " + " | ".join(WAYS.values()) + " |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"- {batch(story)}; {story['precision']}; loss {story['config']['loss']}; seed {story['seed']}",
            *(f"- {stage}" for stage in story["stages"]),
            f"- data: {data['train']:,} pairs to train on, {data['validation']:,} held out by {data['validation_by']};"
            f" export {data['export'] or '–'}, manifest {data['manifest_hash']}",
            f"- config {story['config_hash']}; git commit {story['git_commit'] or '–'};"
            f" {', '.join(f'{name} {version}' for name, version in story['libraries'].items())}",
            f"- hardware: {', '.join(f'{name} {value}' for name, value in story['hardware'].items())}",
            "",
            "![Curves](curves.png)"
            if story.get("curves")
            else "No curves: matplotlib is not installed (`vlmdata[train]`).",
            "",
        ]
    )


def write_card(out: Path, story: dict[str, Any]) -> str:
    """Put the card into a training's folder; returns it."""
    told = card(story)
    (out / "README.md").write_text(told, encoding="utf-8")
    return told


def _recall(row: dict[str, Any], way: str) -> str:
    low, high = row[f"{way}_r10_interval"]
    shares = " / ".join(f"{row[f'{way}_r{k}']:.1%}" for k in (1, 5, 10))
    return f"{shares} [{low:.1%}, {high:.1%}]"


def _plain(text: object) -> str:
    """Names are other people's: nothing in them is Markdown."""
    return "".join(letter if letter.isalnum() or letter in " -_.:/@" else "·" for letter in str(text))
