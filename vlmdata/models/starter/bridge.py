"""Where training of a starter's projections begins: with ImageNet's class names, and no training at all.

The classifier that came with the image tower says how far a picture is each of
a thousand things, and the text tower has a place for the name of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmdata.models.starter.build import Parts

PROMPT = "a photo of a {}"
_TEXTS = 64
"""Texts that are read at a time."""


def lay_bridge(parts: Parts) -> None:
    """Set fresh projections: class names as the image side's; texts stay where they are, less a mean if they have one.

    The image side's residual says nothing, so that all it knows is the bridge.
    """
    import torch

    project, head = parts.model.text.proj, parts.model.visual.head
    names = class_names(parts)
    with torch.no_grad():
        if hasattr(project, "mean"):
            project.mean.copy_(names.mean(0))
        torch.nn.init.eye_(getattr(project, "linear", project).weight)
        set_classes(head, project(names))


def set_classes(head: Any, places: Any) -> None:
    """Places in the common space (1000, dim) as the image side's knowledge; what it added before is silenced."""
    import torch

    with torch.no_grad():
        head.classes.weight.copy_((places - places.mean(0)).T)
        head.residual[-1].weight.zero_()


def class_names(parts: Parts) -> Any:
    """Sentence vectors (1000, width) of ImageNet's classes, as open_clip names them."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    # Two names stand there twice; each is read once.
    place = {name: row for row, name in enumerate(dict.fromkeys(IMAGENET_CLASSNAMES))}
    read = sentences(parts, [PROMPT.format(name) for name in place])
    return read[[place[name] for name in IMAGENET_CLASSNAMES]]


def sentences(parts: Parts, texts: Sequence[str]) -> Any:
    """What the text tower says before its projection: (n, width) float32, normalised."""
    import torch

    text, pad = parts.model.text, parts.model.text.config.pad_token_id
    # Texts of about one length together: a batch is as long as its longest.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    found = torch.empty(len(texts), text.config.hidden_size)
    with torch.inference_mode():
        for start in range(0, len(order), _TEXTS):
            some = order[start : start + _TEXTS]
            tokens = parts.tokenizer([texts[index] for index in some])
            tokens = tokens[:, : int((tokens != pad).sum(1).max())]
            mask = (tokens != pad).long()
            pooled = text.pooler(text.transformer(input_ids=tokens, attention_mask=mask), mask)
            found[some] = torch.nn.functional.normalize(pooled, dim=-1)
    return found
