"""What is saved loads wherever a model is named: starters, which open_clip cannot build, and Hugging Face towers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.unit.training.conftest import PREPROCESS, Configured, hugging_face
from vlmdata.errors import ConfigError
from vlmdata.models.load import load_parts
from vlmdata.models.source import describe, resolve
from vlmdata.models.starter import bridge
from vlmdata.models.starter.bridge import class_names
from vlmdata.training.engine.models import Learner, learner, save_folder, state_of


def saved(folder: Path, learned: Learner) -> Path:
    folder.mkdir()
    save_folder(folder, learned, state_of(learned.parts.model))
    return folder


@pytest.mark.parametrize("name", ["starter", "starter-multilingual"])
def test_a_starter_that_was_trained_further_is_one(configured: Configured, tmp_path: Path, name: str) -> None:
    learned = learner(configured(model=name))
    with torch.no_grad():
        learned.parts.model.visual.head.residual[0].bias += 1
    folder = saved(tmp_path / "mine", learned)
    again = load_parts(resolve(str(folder)))
    assert describe(str(folder)).languages == describe(name).languages
    assert again.preprocess == learned.parts.preprocess
    image, tokens = torch.ones(1, 3, 224, 224), again.tokenizer(["a red card"])
    for other, own in ((again.model.encode_image, learned.parts.model.encode_image),):
        assert torch.equal(other(image), own(image))
    assert torch.equal(again.model.encode_text(tokens), learned.parts.model.encode_text(tokens))
    before = load_parts(resolve(name)).model.encode_image(image)
    assert not torch.equal(before, again.model.encode_image(image))


@pytest.mark.parametrize("name", ["starter", "starter-multilingual"])
def test_a_starter_can_begin_before_it_was_trained(configured: Configured, tmp_path: Path, name: str) -> None:
    one = learner(configured(model=name, pretrained="bridge"))
    model, classes = one.parts.model, class_names(one.parts)
    assert not one.from_scratch, "its towers know something"
    # A picture that is surely of one class lies where the class's name does, less what all names share.
    places = model.text.proj(classes)
    certain = torch.nn.functional.one_hot(torch.tensor([0, 7, 999]), 1000).float()
    assert torch.allclose(model.visual.head.classes(certain), (places - places.mean(0))[[0, 7, 999]], atol=1e-6)
    assert not model.visual.head.residual(torch.ones(1, 1280)).any(), "it adds nothing yet"
    again = load_parts(resolve(str(saved(tmp_path / "mine", one))))
    assert torch.equal(again.model.visual.head.classes.weight, model.visual.head.classes.weight)


def test_what_a_starter_begins_with_follows_the_seed(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    # Their meaning is nothing to what is drawn.
    monkeypatch.setattr(bridge, "class_names", lambda parts: torch.ones(1000, 384))
    learned = [learner(configured(model="starter", pretrained="bridge", seed=seed)) for seed in (0, 0, 1)]
    one, same, other = (each.parts.model.visual.head.residual[0].weight for each in learned)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_starter_has_no_tags(configured: Configured) -> None:
    with pytest.raises(ConfigError, match="pretrained = 'openai': starter ships one set of weights; leave it out, or"):
        learner(configured(model="starter", pretrained="openai"))


def test_a_folder_that_claims_to_be_a_starter_which_is_none_is_refused(configured: Configured, tmp_path: Path) -> None:
    folder = saved(tmp_path / "mine", learner(configured()))
    config = json.loads((folder / "open_clip_config.json").read_text())
    (folder / "open_clip_config.json").write_text(json.dumps({**config, "built_as": "os.system"}))
    with pytest.raises(ConfigError, match=r"built_as = 'os.system': expected one of starter, starter-multilingual"):
        load_parts(resolve(str(folder)))


def test_a_folder_without_weights_is_a_model_with_new_ones(configured: Configured, vit: Path) -> None:
    one, same, other = (learner(configured(model=str(vit), seed=seed)) for seed in (0, 0, 1))
    assert one.from_scratch
    assert one.parts.preprocess["interpolation"] == PREPROCESS["interpolation"]
    assert torch.equal(one.parts.model.visual.proj, same.parts.model.visual.proj)
    assert not torch.equal(one.parts.model.visual.proj, other.parts.model.visual.proj)


def test_a_hugging_face_tower_is_saved_with_what_it_needs(configured: Configured, tmp_path: Path) -> None:
    learned = learner(configured(model=str(hugging_face(tmp_path / "hf"))))
    folder = saved(tmp_path / "mine", learned)
    again = load_parts(resolve(str(folder)))
    tokens = again.tokenizer(["a red card"])
    learned.parts.model.eval()
    assert torch.equal(tokens, learned.parts.tokenizer(["a red card"]))
    assert torch.allclose(again.model.encode_text(tokens), learned.parts.model.encode_text(tokens), atol=1e-6)
