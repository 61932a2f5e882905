"""Models that train in seconds, and sets to train them on."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlmdata.training.config import TRAIN, TrainConfig
from vlmdata.training.engine.step import Stepper
from vlmdata.training.log import read_figures
from vlmdata.training.train import train

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": None}
PREPROCESS = {"size": [32, 32], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "fill_color": 0}
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (128, 128, 128)}


def model_folder(folder: Path, vision: Mapping[str, Any]) -> Path:
    """A model that has no weights yet."""
    folder.mkdir()
    config = {
        "model_cfg": {"embed_dim": 16, "vision_cfg": dict(vision), "text_cfg": TEXT},
        "preprocess_cfg": PREPROCESS,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision transformer of two layers."""
    return model_folder(tmp_path_factory.mktemp("models") / "vit", VIT)


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tower with batch-norm."""
    return model_folder(tmp_path_factory.mktemp("models") / "resnet", RESNET)


def hugging_face(folder: Path) -> Path:
    """A folder of a tower of Hugging Face's, its tokenizer beside it, without weights."""
    from transformers import BertConfig, BertTokenizerFast

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "card"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertConfig(vocab_size=len(words), **size).save_pretrained(folder)
    text = {
        "hf_model_name": str(folder),
        "hf_tokenizer_name": str(folder),
        "hf_model_pretrained": False,
        "context_length": 16,
        "hf_proj_type": "linear",
        "hf_pooler_type": "mean_pooler",
    }
    model = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": PREPROCESS}))
    return folder


def drawn(number: int) -> tuple[bytes, str]:
    """A picture of a colour with a mark somewhere, and a caption that says so."""
    name = list(COLOURS)[number % len(COLOURS)]
    pixels = np.full((40, 56, 3), COLOURS[name], np.uint8)
    pixels[number % 30 : number % 30 + 8, number % 40 : number % 40 + 8] = 255
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue(), f"a {name} card, number {number}"


def tar_of(samples: Sequence[tuple[str, bytes, Sequence[Mapping[str, Any]]]]) -> bytes:
    """A tar of keys, pictures and captions."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for key, picture, captions in samples:
            for suffix, data in (("png", picture), ("json", json.dumps({"captions": list(captions)}).encode())):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def write_export(
    folder: Path, samples: int = 48, a_tar: int = 16, *, splits: bool = False, manifest: bool = True, **change: Any
) -> Path:
    """An export of drawn pictures: tars, and the manifest that an export puts last."""
    files = []
    for number, start in enumerate(range(0, samples, a_tar)):
        rows = [
            (sha256(str(at).encode()).hexdigest()[:32], *_pair(at)) for at in range(start, min(samples, start + a_tar))
        ]
        split = ("validation" if number == 0 else "train") if splits else None
        path = f"{split + '/' if split else ''}webdataset/{number:05d}.tar"
        data = tar_of(rows)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        told = {"path": path, "format": "webdataset", "bytes": len(data), "samples": len(rows)}
        files.append({**told, "sha256": sha256(data).hexdigest(), **({"split": split} if split else {})})
    if manifest:
        said = {"dataset": "cards", "export": "e" * 32, "complete": True, "samples": samples, "files": files, **change}
        (folder / "MANIFEST.json").write_text(json.dumps(said))
    return folder


def _pair(number: int) -> tuple[bytes, list[dict[str, Any]]]:
    picture, caption = drawn(number)
    return picture, [{"text": caption, "lang": "en"}]


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pairs in three tars, without splits."""
    return write_export(tmp_path_factory.mktemp("export") / "cards")


Configured = Callable[..., TrainConfig]


@pytest.fixture
def configured(tmp_path: Path, vit: Path, export: Path) -> Configured:
    """A config of two epochs in this process, with changes."""

    def make(**changes: Any) -> TrainConfig:
        base = {
            "data": str(export),
            "out": str(tmp_path / "out"),
            "model": str(vit),
            "epochs": 2,
            "base_lr": 1e-3,
            "batch_per_device": 8,
            "allow_small_batch": True,
            "validation_share": 0.3,
            "workers": 0,
            "warmup": 0.1,
            "trackers": [],
            "device": "cpu",
        }
        return TRAIN.parse({**base, **changes})

    return make


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small products are done sooner by one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def losses(out: str) -> list[float]:
    return [line["loss"] for line in read_figures(Path(out)) if line["kind"] == "step"]


class Killed(BaseException):
    pass


def killed_at(patched: pytest.MonkeyPatch, step: int) -> None:
    """The run dies as it is about to take a step, counted from 0."""
    real = Stepper.step

    def dying(self: Stepper, number: int, *rest: Any) -> dict[str, float]:
        if number == step:
            raise Killed
        return real(self, number, *rest)

    patched.setattr(Stepper, "step", dying)


def broken_off(patched: pytest.MonkeyPatch, config: TrainConfig, step: int) -> None:
    """Train until the run dies as it is about to take a step, counted from 0."""
    killed_at(patched, step)
    with pytest.raises(Killed):
        train(config)
