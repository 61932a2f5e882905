"""The multilingual model that ships: what its files say, and what it computes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from vlmdata.errors import ConfigError
from vlmdata.measure.encoder import Encoder, load_encoder
from vlmdata.models import starter, starter_multilingual
from vlmdata.models.calibration import thresholds_for
from vlmdata.models.source import describe, model_identity, read_config, resolve
from vlmdata.models.starter import build as starter_build
from vlmdata.models.starter_multilingual import build

NAME = starter_multilingual.NAME
LIMIT = 4 * 1024 * 1024
SAME = {
    "en": "a dog",
    "de": "ein Hund",
    "fr": "un chien",
    "es": "un perro",
    "ru": "собака",
    "zh": "一只狗",
    "ja": "犬",
}
OTHER = {
    "en": "a house",
    "de": "ein Haus",
    "fr": "une maison",
    "es": "una casa",
    "ru": "дом",
    "zh": "一座房子",
    "ja": "家",
}


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's files where a test may change them."""
    for name in ("CONFIG", "WEIGHTS"):
        place = tmp_path / getattr(starter_multilingual, name).name
        shutil.copy(getattr(starter_multilingual, name), place)
        monkeypatch.setattr(starter_multilingual, name, place)
    return tmp_path


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(NAME, device="cpu")


def test_it_is_known_by_name_without_its_package() -> None:
    about = describe(NAME)
    assert about.identity.startswith(f"{NAME}@") and about.identity != model_identity(starter.NAME)
    assert {"en", "de", "fr", "es", "zh", "ru"} <= about.languages and not {"ja", "tlh"} & about.languages
    assert resolve(NAME).kind == "starter"


def test_every_listed_language_has_thresholds_of_its_own() -> None:
    for language in describe(NAME).languages:
        bands = thresholds_for(NAME, language=language)
        assert bands.language == language and bands.n >= 100 and "LAION" not in bands.note
        assert bands.model == model_identity(NAME)
    assert "nothing was measured" in thresholds_for(NAME, language="tlh").note


def test_the_card_says_that_it_is_weak_and_tells_of_every_listed_language() -> None:
    card = starter_multilingual.CARD.read_text(encoding="utf-8")
    for part in ("It is weak", "R@1 / R@5 / R@10", "Tux Paint stamps", "AUC", "prove nothing"):
        assert part in card
    assert all(f"\n| {language} | " in card for language in describe(NAME).languages)


def test_only_what_was_trained_ships_and_it_is_small() -> None:
    from safetensors import safe_open

    assert starter_multilingual.WEIGHTS.stat().st_size <= LIMIT
    with safe_open(starter_multilingual.WEIGHTS, "pt") as file:
        assert all(name.startswith(build.TRAINED) for name in file.keys())  # noqa: SIM118


def test_a_missing_package_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "TEXT_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"starter-multilingual needs the package no-such-package.*pip install") as e:
        build.build()
    assert "\n" not in str(e.value)


def test_it_is_an_open_clip_model() -> None:
    from open_clip.model import CustomTextCLIP

    parts = build.build()
    assert isinstance(parts.model, CustomTextCLIP) and not parts.model.training


def test_it_sees_with_the_image_tower_of_starter_bit_for_bit() -> None:
    """Weights and running means, of which some would pass unnoticed if a tower were trained on."""
    import torch

    ours, its = (parts.model.visual.trunk.state_dict() for parts in (build.build(), starter_build.build()))
    assert list(ours) == list(its) and len(its) > 200
    for name, tensor in its.items():
        assert (ours[name].dtype, ours[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(ours[name], tensor), name


def test_a_word_is_nearer_to_its_translations_than_to_another_word(encoder: Encoder) -> None:
    same, other = (encoder.texts(list(words.values())) for words in (SAME, OTHER))
    assert (same @ same.T).min() > (same @ other.T).max()


def test_loading_twice_gives_the_same_bits(encoder: Encoder) -> None:
    again = Encoder(
        build.build(),
        model=NAME,
        pretrained=None,
        identity=encoder.identity,
        languages=encoder.languages,
        device="cpu",
    )
    assert again.weights == encoder.weights
    assert np.array_equal(again.texts(["ein Hund", "家"]), encoder.texts(["ein Hund", "家"]))


def test_a_text_embeds_to_the_same_bits_whatever_it_is_batched_with(encoder: Encoder) -> None:
    texts = [*SAME.values(), *OTHER.values(), "ein langer Satz über einen Hund, der vor einem Haus sitzt, " * 3]
    together = encoder.texts(texts)
    assert all(np.array_equal(encoder.texts([text])[0], row) for text, row in zip(texts, together, strict=True))


def test_a_text_of_more_tokens_than_it_reads_is_told(encoder: Encoder) -> None:
    counts = encoder.token_counts(["ein Hund", "Hund " * 100])
    assert (counts > encoder.context_length).tolist() == [False, True]


def test_other_towers_than_it_was_trained_with_are_refused(copied: Path) -> None:
    expected = read_config(starter_multilingual.CONFIG)["towers"]["text"]
    starter_multilingual.CONFIG.write_text(starter_multilingual.CONFIG.read_text().replace(expected, "0" * 64))
    with pytest.raises(ConfigError, match="starter-multilingual's text tower"):
        build.build()


def test_weights_without_a_trained_part_are_refused(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(starter_multilingual.WEIGHTS)
    del state["text.proj.mean"], state["text.proj.linear.weight"]
    save_file(state, starter_multilingual.WEIGHTS)
    with pytest.raises(ConfigError, match="does not fit"):
        build.build()
