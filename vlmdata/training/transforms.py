"""What a model sees of a picture: its own transform when it is measured, square crops of it when it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from vlmdata.errors import ConfigError
from vlmdata.training.config import TrainConfig

Transform = Callable[[Image.Image], Any]


def measuring(preprocess: dict[str, Any]) -> Transform:
    """The model's own evaluation transform, RGB image to (3, H, W) float32; nothing in it is drawn."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    found: Transform = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
    return found


def learning(preprocess: dict[str, Any], crop_scale: tuple[float, float], *, flip: bool) -> Transform:
    """Square crops at the model's size, interpolation and normalisation; half of them mirrored if `flip`.

    open_clip's own training transform crops at ratios of 3:4 to 4:3, which distorts.
    Draws from torch's generator.
    """
    from torchvision import transforms as tv

    modes = {"bilinear": tv.InterpolationMode.BILINEAR, "bicubic": tv.InterpolationMode.BICUBIC}
    size = preprocess["size"]
    steps = [
        tv.RandomResizedCrop(
            size if isinstance(size, int) else tuple(size),
            scale=crop_scale,
            ratio=(1.0, 1.0),
            interpolation=modes[preprocess.get("interpolation", "bicubic")],
        ),
        *([tv.RandomHorizontalFlip()] if flip else []),
        tv.ToTensor(),
        tv.Normalize(preprocess["mean"], preprocess["std"]),
    ]
    found: Transform = tv.Compose(steps)
    return found


def check_preprocessing(config: TrainConfig, preprocess: dict[str, Any]) -> None:
    """Compare what the config expects of the model with what the model does.

    Raises:
        ConfigError: they differ; the weights would see pictures that they do not know.
    """
    size = preprocess["size"]
    if not isinstance(size, int) and size[0] != size[1]:
        raise ConfigError(f"model: {config.model} takes pictures of {size[0]} x {size[1]}; expected a square")
    for key in ("interpolation", "mean", "std"):
        expected, own = getattr(config, key), preprocess[key]
        own = tuple(own) if isinstance(own, list | tuple) else own
        if expected is not None and expected != own:
            raise ConfigError(
                f"{key} = {_plain(expected)}: {config.model} was made with {_plain(own)}, and sees pictures through it;"
                f" leave {key} out, or choose another model"
            )


def _plain(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
