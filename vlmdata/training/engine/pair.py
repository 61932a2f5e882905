"""A model's two towers behind one forward, so that torch's DDP sees all that learns; and what of them learns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlmdata.errors import BrokenInvariant, ConfigError
from vlmdata.measure.encoder import IMAGE_BATCH, TEXT_LENGTHS, masked_padding

VISION, TEXT, LOGIT = "vision", "text", "logit"
TOWERS = (VISION, TEXT)
# The last step from a tower into the common space; `starter`'s classifier is ImageNet's, and stays.
_PROJECTION = {
    VISION: re.compile(r"visual\.(proj|head)(\.|$)(?!classifier\.)"),
    TEXT: re.compile(r"(text\.)?(proj|text_projection)(\.|$)"),
}


class Pair(nn.Module):
    """Two towers: normalised embeddings in fp32, whatever they compute with."""

    def __init__(self, model: Any, *, low_precision: bool, device: str, biased: bool = False) -> None:
        """Take over an open_clip model; `low_precision` is bf16 autocast, `biased` that the loss has a bias."""
        super().__init__()
        self.model = model
        self._pad = masked_padding(model)
        self._in_parts = torch.device(device).type == "cpu" and bool(_norms(model.visual))
        self._low, self._kind, self._biased = low_precision, torch.device(device).type, biased

    @property
    def bias(self) -> Tensor | None:
        """The model's, where the loss has one."""
        return self.model.logit_bias if self._biased else None

    def forward(
        self, images: Tensor | None, tokens: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor | None]:
        """Embeddings (n, dim) of images and of texts, the scale of their cosines, and the bias if the loss has one."""
        with torch.autocast(self._kind, dtype=torch.bfloat16, enabled=self._low):
            seen = None if images is None else self._seen(images)
            read = None if tokens is None else self.model.encode_text(self._cut(tokens))
        # A parameter itself would be none that DDP sees at work.
        bias = None if self.bias is None else self.bias + 0
        return _unit(seen), _unit(read), self.model.logit_scale.exp(), bias

    def _seen(self, images: Tensor) -> Tensor:
        """In parts that a processor's caches hold, if it has batch-norm and the tower stays as it is.

        `starter`'s steps of 512 pairs go twice as fast by that (46 against 23 pictures/s on 2 cores);
        transformers, whose products want many rows, would take a fifth longer.
        """
        if not self._in_parts or any(True for _ in self._learning_below_projection()):
            return cast(Tensor, self.model.encode_image(images))
        parts = torch.split(images, IMAGE_BATCH["cpu"])
        return torch.cat(
            [self.model.encode_image(part.contiguous(memory_format=torch.channels_last)) for part in parts]
        )

    def _learning_below_projection(self) -> Iterator[nn.Parameter]:
        for name, parameter in self.model.visual.named_parameters(prefix="visual"):
            if parameter.requires_grad and not _PROJECTION[VISION].match(name):
                yield parameter

    def _cut(self, tokens: Tensor) -> Tensor:
        """Less padding that the tower would mask: captions are short, and contexts long."""
        if self._pad is None:
            return tokens
        longest = int((tokens != self._pad).sum(dim=1).max())
        return tokens[:, : next((length for length in TEXT_LENGTHS if length >= longest), tokens.shape[1])]


def _unit(vectors: Tensor | None) -> Tensor | None:
    return None if vectors is None else nn.functional.normalize(vectors.float(), dim=-1)


def tower_of(name: str) -> str:
    """Which part of an open_clip model a parameter belongs to, by its name."""
    if name.startswith("visual."):
        return VISION
    return LOGIT if name.startswith("logit_") else TEXT


def let_learn(model: Any, learns: dict[str, str]) -> None:
    """Set what learns: of each tower `frozen`, `projection`, `lora` (adapters that are there) or `trained`.

    Raises:
        ConfigError: a tower has no projection of its own.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_learns(name, learns))
        parameter.grad = None  # of a stage before
    for tower in TOWERS:
        if learns[tower] != "frozen" and not any(True for _ in learning(model, tower)):
            raise ConfigError(f"stages: {tower}: {learns[tower]}: the model's {tower} tower has none; set trained")


def _learns(name: str, learns: dict[str, str]) -> bool:
    tower = tower_of(name)
    if tower == LOGIT:
        return True
    if learns[tower] == "projection":
        return bool(_PROJECTION[tower].match(name))
    if learns[tower] == "lora":
        return "lora_" in name or bool(_PROJECTION[tower].match(name))
    return learns[tower] == "trained"


def learning(model: Any, tower: str) -> Iterator[nn.Parameter]:
    """A part's parameters that learn."""
    return (p for name, p in model.named_parameters() if tower_of(name) == tower and p.requires_grad)


def hide_features(model: Any, share: float) -> None:
    """Where the vision projection learns, show it a part of the tower's features at a time (dropout, Srivastava 2014).

    A projection alone, on a tower that stays as it is, soon knows a few thousand pictures by heart.

    Args:
        model: An open_clip model.
        share: Of the features, drawn anew for each picture and step; what is left is scaled up.

    Raises:
        ConfigError: the projection is no layer of its own.
    """
    head = getattr(model.visual, "head", None)
    if not isinstance(head, nn.Module) or not list(head.parameters()):
        raise ConfigError(
            "projection_dropout: the model's vision projection is no layer with features before it; leave it 0"
        )

    def hide(layer: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        learns = any(parameter.requires_grad for parameter in layer.parameters())
        return (nn.functional.dropout(given[0], share, training=model.training and learns),)

    head.register_forward_pre_hook(hide)


def set_modes(model: Any, learns: dict[str, str], *, fixed_norms: bool) -> int:
    """Training mode for towers that learn as a whole; evaluation mode for others, so no dropout and fixed statistics.

    Args:
        model: An open_clip model.
        learns: As for `let_learn`.
        fixed_norms: Batch-norm keeps its statistics even where its tower learns.

    Returns:
        The number of batch-norm layers whose statistics are fixed.
    """
    for name, module in model.named_modules():
        module.training = bool(name) and learns.get(tower_of(f"{name}."), "frozen") in ("trained", "lora")
    model.training = True
    norms = _norms(model)
    for norm in norms:
        norm.training = norm.training and not fixed_norms
    return sum(not norm.training for norm in norms)


def _norms(model: Any) -> list[nn.Module]:
    """Batch-norm layers: most of what convolves has them, and transformers have not."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


class Frozen:
    """Remembers what is not to change, and says so if it did."""

    def __init__(self, model: Any) -> None:
        """Take note of all frozen weights, and of statistics that are fixed."""
        self._model = model
        self._was = self._state()

    def verify(self) -> None:
        """Compare.

        Raises:
            BrokenInvariant: a frozen weight got a gradient, or it or a fixed statistic changed.
        """
        for name, parameter in self._model.named_parameters():
            if not parameter.requires_grad and parameter.grad is not None:
                raise BrokenInvariant(f"training: {name} is frozen and has a gradient")
        for name, digest in self._state().items():
            if self._was[name] != digest:
                raise BrokenInvariant(f"training: {name} is frozen and has changed")

    @property
    def count(self) -> int:
        """Frozen tensors."""
        return len(self._was)

    def _state(self) -> dict[str, str]:
        frozen = {name: p for name, p in self._model.named_parameters() if not p.requires_grad}
        for place, module in self._model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.training:
                frozen |= {f"{place}.{name}": buffer for name, buffer in module.named_buffers(recurse=False)}
        return {name: _digest(tensor) for name, tensor in frozen.items()}


def _digest(tensor: Tensor) -> str:
    flat: Any = tensor.detach().cpu().contiguous().reshape(-1)
    return sha256(memoryview(flat.view(torch.uint8).numpy())).hexdigest() if flat.numel() else ""
