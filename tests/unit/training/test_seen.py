"""What a model sees: square crops that distort nothing, its own transform when it is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.training.conftest import PREPROCESS, Configured, drawn, tar_of, write_export
from vlmdata.errors import ConfigError, SourceError
from vlmdata.training.loading import Pairs, load
from vlmdata.training.samples import open_samples
from vlmdata.training.transforms import check_preprocessing, learning, measuring


def tokenizer(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[len(text), *text.encode()[:2]] for text in texts])


def pairs(configured: Configured, data: Path, **changes: Any) -> Pairs:
    config = configured(data=str(data), **changes)
    out = Path(config.out)
    out.mkdir(exist_ok=True)
    plain, flipping = (learning(PREPROCESS, config.crop_scale, flip=flip) for flip in (False, True))
    return Pairs(open_samples(config, out), measuring(PREPROCESS), plain, flipping, tokenizer, config.seed)


def ring(width: int, height: int) -> Image.Image:
    """Circles of radius 12 all over, black on white."""
    y, x = np.mgrid[:height, :width]
    inside = ((x % 40 - 20) ** 2 + (y % 40 - 20) ** 2) < 144
    return Image.fromarray(np.where(inside, 0, 255).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("size", [(200, 200), (400, 200), (200, 320), (800, 120)])
def test_crops_are_square_so_circles_stay_circles(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.transforms import RandomResizedCrop

    seen: list[tuple[int, int]] = []
    real = RandomResizedCrop.get_params

    def spied(image: Any, scale: Any, ratio: Any) -> Any:
        found = real(image, scale, ratio)
        seen.append((found[2], found[3]))
        return found

    monkeypatch.setattr(RandomResizedCrop, "get_params", staticmethod(spied))
    transform = learning(PREPROCESS, (0.3, 1.0), flip=True)
    for _ in range(50):
        assert transform(ring(*size)).shape == (3, 32, 32)
    assert len(seen) == 50
    assert all(abs(height - width) <= 1 for height, width in seen)


def test_training_normalises_and_resizes_as_the_model_does() -> None:
    flat = Image.new("RGB", (64, 64), (51, 102, 204))
    assert torch.allclose(learning(PREPROCESS, (0.5, 1.0), flip=True)(flat), measuring(PREPROCESS)(flat))
    transform: Any = learning(PREPROCESS, (0.5, 1.0), flip=True)
    assert str(transform.transforms[0].interpolation) == "InterpolationMode.BILINEAR"


def test_evaluation_is_the_model_s_own_transform_and_draws_nothing() -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    image = ring(90, 60)
    own: Any = image_transform_v2(PreprocessCfg(**PREPROCESS), is_train=False)
    first = measuring(PREPROCESS)(image)
    state = torch.get_rng_state()
    assert torch.equal(first, measuring(PREPROCESS)(image))
    assert torch.equal(first, own(image))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"interpolation": "bicubic"}, "interpolation = bicubic: .* was made with bilinear"),
        ({"mean": (0.48, 0.45, 0.4)}, r"mean = \[0.48, 0.45, 0.4\]: .* was made with \[0.5, 0.5, 0.5\]"),
        ({"std": (0.2, 0.2, 0.2)}, r"std = \[0.2, 0.2, 0.2\]: .* was made with \[0.25, 0.25, 0.25\]"),
    ],
)
def test_preprocessing_that_is_not_the_model_s_is_refused(
    configured: Configured, expected: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_preprocessing(configured(**expected), PREPROCESS)


def test_preprocessing_that_is_the_model_s_passes(configured: Configured) -> None:
    check_preprocessing(configured(interpolation="bilinear", mean=(0.5, 0.5, 0.5)), PREPROCESS)


def one_tar(folder: Path, captions: list[dict[str, Any]], samples: int = 20) -> Path:
    folder.mkdir()
    left = Image.new("RGB", (32, 32), "white")
    left.paste("black", (0, 0, 16, 32))
    import io

    out = io.BytesIO()
    left.save(out, "PNG")
    (folder / "0.tar").write_bytes(tar_of([(f"s{n}", out.getvalue(), captions) for n in range(samples)]))
    return folder


@pytest.mark.parametrize(("caption", "sides"), [("a half black card", {True, False}), ("black on the left", {True})])
def test_a_picture_whose_caption_says_left_is_never_mirrored(
    configured: Configured, tmp_path: Path, caption: str, sides: set[bool]
) -> None:
    found = pairs(configured, one_tar(tmp_path / "set", [{"text": caption}]), crop_scale=(1.0, 1.0))
    loaded = found._batch([(epoch, row) for epoch in range(3) for row in range(20)])
    assert {bool(image[0, 16, 2] < image[0, 16, 29]) for image in loaded.images} == sides


def test_captions_are_drawn_by_their_weights(configured: Configured, tmp_path: Path) -> None:
    captions = [{"text": "aa", "lang": "en"}, {"text": "bbb", "lang": "de"}, {"text": "cccc", "lang": "fr"}]
    folder = one_tar(tmp_path / "set", captions)
    found = pairs(configured, folder, caption_weights={"en": 3, "de": 1})
    loaded = found._batch([(epoch, row) for epoch in range(100) for row in range(20)])
    lengths = loaded.tokens[:, 0].numpy()
    assert set(lengths) == {2, 3}
    assert 0.72 < np.mean(lengths == 2) < 0.78


def test_what_is_drawn_depends_on_seed_epoch_and_sample_alone(configured: Configured, export: Path) -> None:
    found = pairs(configured, export)
    keys = [[(0, 3), (1, 3)], [(0, 5), (0, 3)]]
    here = list(load(found, iter(keys), 0, pin=False))
    there = list(load(found, iter(keys), 2, pin=False))
    assert torch.equal(here[0].images[0], here[1].images[1])
    assert not torch.equal(here[0].images[0], here[0].images[1])
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.tokens, other.tokens)
        assert one.ids == other.ids


def test_a_picture_that_does_not_decode_is_told_and_the_next_stands_in(configured: Configured, tmp_path: Path) -> None:
    picture = drawn(1)[0]
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [(f"s{n:02}", picture if n != 7 else picture[:60], [{"text": "a card"}]) for n in range(30)]
    (folder / "0.tar").write_bytes(tar_of(rows))
    [loaded] = load(pairs(configured, folder), iter([[(0, row) for row in range(30)]]), 0, pin=False)
    assert [sample for sample, _ in loaded.failed] == ["s07"]
    assert loaded.ids[7] == "s08"
    assert len(loaded.ids) == 30


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_of_nothing_but_rubbish_ends_in_one_line(configured: Configured, tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "0.tar").write_bytes(tar_of([(f"s{n:02}", b"rubbish", [{"text": "a card"}]) for n in range(30)]))
    with pytest.raises(SourceError, match="16 pictures in a row do not decode, the first s00") as caught:
        list(load(pairs(configured, folder), iter([[(0, 0)]]), workers, pin=False))
    assert "\n" not in str(caught.value)


def test_an_export_s_pictures_are_those_of_its_tars(configured: Configured, tmp_path: Path) -> None:
    found = pairs(configured, write_export(tmp_path / "set", samples=24, a_tar=7))
    for row, said in enumerate(found.samples.table["captions"].to_pylist()):
        number = int(said[0].rpartition(" ")[2])
        with Image.open(__import__("io").BytesIO(drawn(number)[0])) as expected:
            assert np.array_equal(np.asarray(found.image(row)), np.asarray(expected))
