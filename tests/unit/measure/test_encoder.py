"""The encoder seam, on the real `starter` model and on small open_clip models made here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vlmdata.errors import ConfigError
from vlmdata.measure.encoder import Encoder, device_of, load_encoder, model_identity, precision_on
from vlmdata.measure.one_core import one_core_threads

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PREPROCESS = {"size": [32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize_mode": "squash"}
SHORT, LONG = "a cat", "a cat that sits " * 4 + "on a mat"


@pytest.fixture(scope="module")
def starter() -> Encoder:
    return load_encoder("starter", device="cpu")


@pytest.fixture(scope="module")
def pictures(starter: Encoder) -> np.ndarray:
    return np.stack([starter.prepare(picture(seed)) for seed in range(64)])


@pytest.fixture(scope="module")
def captions() -> list[str]:
    things = ("cat", "red house", "ship at sea", "clock")
    return [f"a {things[i % 4]}, number {i}" + " and one more thing" * (i % 23) for i in range(100)]


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8), "RGB")


def save_tiny(folder: Path, **extra: object) -> Path:
    """A folder as open_clip saves its models, with random weights."""
    import torch
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    save_file(dict(CLIP(**TINY).state_dict()), folder / "open_clip_model.safetensors")
    config = {"model_cfg": TINY, "preprocess_cfg": PREPROCESS, **extra}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def test_embeddings_are_unit_float32_of_the_stated_size(starter: Encoder, pictures: np.ndarray) -> None:
    for vectors in (starter.images(pictures[:3]), starter.texts([SHORT, LONG, ""])):
        assert vectors.shape == (3, starter.dim) and vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_no_rows_give_no_embeddings(starter: Encoder, pictures: np.ndarray) -> None:
    assert starter.images(pictures[:0]).shape == (0, starter.dim)
    assert starter.texts([]).shape == (0, starter.dim)
    assert starter.token_counts([]).shape == (0,)


def test_an_image_embeds_to_the_same_bits_whatever_it_is_batched_with(starter: Encoder, pictures: np.ndarray) -> None:
    together = starter.images(pictures)
    order = np.random.default_rng(0).permutation(len(pictures))
    assert np.array_equal(starter.images(pictures[order]), together[order])
    for row in (0, 33):
        assert np.array_equal(starter.images(pictures[row : row + 1])[0], together[row])


def test_a_text_embeds_to_the_same_bits_whatever_it_is_batched_with(starter: Encoder, captions: list[str]) -> None:
    together = starter.texts(captions)
    order = np.random.default_rng(1).permutation(len(captions))
    assert np.array_equal(starter.texts([captions[row] for row in order]), together[order])
    for row in (0, 22, 99):
        assert np.array_equal(starter.texts([captions[row]])[0], together[row])


BITS = """
import hashlib, numpy as np
from vlmdata.measure.encoder import load_encoder
encoder = load_encoder("starter", device="cpu")
pictures = np.random.default_rng(0).normal(size=(6, 3, 224, 224)).astype(np.float32)
print(hashlib.sha256(encoder.images(pictures).tobytes() + encoder.texts(["a cat", "a " * 40]).tobytes()).hexdigest())
"""


def test_the_number_of_threads_of_the_process_changes_no_bit() -> None:
    """In processes of their own: torch's number of threads is set when it starts (Ray starts it with one)."""
    said = set()
    for threads in ("1", "5"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=True)
        said.add(done.stdout)
    assert len(said) == 1


def test_model_threads_have_one_core_each_and_leave_the_others_alone(starter: Encoder, pictures: np.ndarray) -> None:
    import torch

    before = torch.get_num_threads()
    starter.images(pictures[:9])
    assert set(one_core_threads().map(lambda _: torch.get_num_threads(), range(8))) == {1}
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == before == torch.get_num_threads()


def test_in_bf16_an_embedding_is_near_the_one_in_fp32_and_as_independent_of_its_batch(
    starter: Encoder, pictures: np.ndarray, captions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU computes with, here on the processor, which knows it too."""
    exact = starter.images(pictures), starter.texts(captions)
    monkeypatch.setattr(starter, "precision", "bf16")
    near = starter.images(pictures), starter.texts(captions)
    for one, other in zip(exact, near, strict=True):
        assert other.dtype == np.float32 and np.allclose(np.linalg.norm(other, axis=1), 1, atol=1e-6)
        cosines = (one * other).sum(axis=1)
        assert cosines.min() > 0.99 and not np.array_equal(one, other)
    assert np.array_equal(near[0][5:9], starter.images(pictures[5:9]))
    assert np.array_equal(near[1][5:9], starter.texts(captions[5:9]))


def test_a_gpu_is_taken_where_there_is_one_and_computes_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert {wanted: (device_of(wanted), precision_on(wanted)) for wanted in ("auto", "cpu", "cuda", "cuda:1")} == {
        "auto": ("cuda", "bf16"),
        "cpu": ("cpu", "fp32"),
        "cuda": ("cuda", "bf16"),
        "cuda:1": ("cuda:1", "bf16"),
    }


def test_short_padding_is_the_whole_context_but_for_rounding(starter: Encoder) -> None:
    import torch

    tokens = starter._tokenizer([SHORT])
    with torch.inference_mode():
        whole = starter._net.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(starter.texts([SHORT]), whole, atol=2e-6)


def test_prepare_is_open_clips_own_evaluation_transform(starter: Encoder) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    own = image_transform_v2(PreprocessCfg(**starter.preprocess), is_train=False)
    for size in ((300, 500), (224, 224), (40, 31)):
        prepared = starter.prepare(picture(1, size))
        assert prepared.dtype == np.float32 and prepared.shape == (3, 224, 224)
        assert np.array_equal(prepared, own(picture(1, size)).numpy())


def test_prepare_is_the_transform_that_open_clip_gives_with_a_model(tmp_path: Path) -> None:
    import open_clip
    import torch

    torch.save(open_clip.create_model("ViT-S-32-alt", load_weights=False).state_dict(), path := tmp_path / "weights.pt")
    encoder = load_encoder("ViT-S-32-alt", str(path), device="cpu")
    _, _, own = open_clip.create_model_and_transforms("ViT-S-32-alt", pretrained=str(path))
    for size in ((300, 500), (225, 224), (40, 31)):
        assert np.array_equal(encoder.prepare(picture(1, size)), own(picture(1, size)).numpy())


def test_a_picture_that_cannot_be_read_is_nan_and_its_batch_survives(starter: Encoder, pictures: np.ndarray) -> None:
    rows = [None if row % 5 == 1 else row for row in range(11)]
    both_views = lambda row: None if row is None else np.stack([pictures[row], pictures[row + 1]])  # noqa: E731
    found = np.concatenate(list(starter.pictures(rows, both_views, views=2)))
    assert found.shape == (11, 2, starter.dim)
    expected = starter.images(pictures[:12])
    for row, name in enumerate(rows):
        assert np.isnan(found[row]).all() if name is None else np.array_equal(found[row], expected[row : row + 2])


def test_starter_matches_plain_pictures_to_their_words(starter: Encoder) -> None:
    texts = starter.texts(["a red circle", "a photograph of a forest"])
    circle = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(circle).ellipse((40, 40, 216, 216), fill="red")
    scores = starter.images(starter.prepare(circle)[None]) @ texts.T
    assert scores[0, 0] > scores[0, 1]


def test_truncated_means_more_tokens_than_the_model_reads(starter: Encoder, tmp_path: Path) -> None:
    # One word is one token here; both tokenizers add a start and an end mark.
    for encoder in (starter, load_encoder(str(save_tiny(tmp_path / "tiny")), device="cpu")):
        fits = "cat " * (encoder.context_length - 2)
        whole = encoder.context_length
        assert encoder.token_counts(["cat", fits, fits + "cat", fits + fits, ""]).tolist() == [
            3,
            whole,
            *[whole + 1] * 2,
            2,
        ]


def test_threads_that_ask_at_once_share_one_encoder(tmp_path: Path, pictures: np.ndarray) -> None:
    folder = str(save_tiny(tmp_path / "tiny"))
    with ThreadPoolExecutor(4) as pool:
        encoders = list(pool.map(lambda _: load_encoder(folder, device="cpu"), range(8)))
        assert all(encoder is encoders[0] for encoder in encoders)
        small = pictures[:4, :, :32, :32]
        rows = list(pool.map(lambda i: encoders[0].images(small[i : i + 1])[0], range(4)))
    assert np.array_equal(np.stack(rows), encoders[0].images(small))


def test_a_folder_loads_offline_and_is_named_by_its_content(tmp_path: Path) -> None:
    first, second = save_tiny(tmp_path / "a"), save_tiny(tmp_path / "b", languages=["de", "en"])
    encoder = load_encoder(str(first), device="cpu")
    assert (encoder.dim, encoder.context_length, encoder.languages) == (16, 12, {"en"})
    assert encoder.prepare(picture(0)).shape == (3, 32, 32)
    other = load_encoder(str(second), device="cpu")
    assert other.weights == encoder.weights and other.languages == {"de", "en"}
    assert model_identity(str(first)) != model_identity(str(second))


def test_the_hash_of_the_weights_follows_one_weight(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny(tmp_path / "tiny")
    before, named = load_encoder(str(folder), device="cpu"), model_identity(str(folder))
    state = load_file(folder / "open_clip_model.safetensors")
    state["ln_final.bias"][0] += 1
    save_file(state, folder / "open_clip_model.safetensors")
    after = load_encoder(str(folder), device="cpu")
    assert model_identity(str(folder)) != named and after is not before
    assert after.weights != before.weights and after.preprocessing == before.preprocessing


def test_a_folder_with_a_hugging_face_tower_needs_no_hub(tmp_path: Path) -> None:
    """The shape of open_clip's xlm-roberta models, small."""
    import torch
    from open_clip.model import CustomTextCLIP
    from safetensors.torch import save_file
    from transformers import BertConfig, BertTokenizerFast

    from vlmdata.models.starter import towers

    folder = tmp_path / "with space"
    folder.mkdir()
    BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32).save_pretrained(folder)
    BertTokenizerFast.from_pretrained(towers.text_folder()).save_pretrained(folder)
    text = {
        "hf_tokenizer_name": "xlm-roberta-tiny",
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "linear",
    }
    config = {**TINY, "text_cfg": {**text, "hf_model_name": "xlm-roberta-tiny", "context_length": 20}}
    torch.manual_seed(0)
    local = {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}
    net = CustomTextCLIP(**{**config, "text_cfg": local})
    save_file(dict(net.state_dict()), folder / "open_clip_model.safetensors")
    saved = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(saved))

    encoder = load_encoder(str(folder), device="cpu")
    assert {"en", "zh"} <= encoder.languages and encoder.context_length == 20
    assert np.array_equal(encoder.texts([SHORT, LONG])[1:], encoder.texts([LONG]))


def test_a_local_weights_file_serves_a_built_in_model(tmp_path: Path) -> None:
    import open_clip
    import torch

    torch.manual_seed(0)
    net = open_clip.create_model("ViT-S-32-alt", load_weights=False)
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": net.state_dict()}, path)
    encoder = load_encoder("ViT-S-32-alt", str(path), device="cpu")
    prepared = encoder.prepare(picture(3))[None]
    with torch.inference_mode():
        expected = net.eval().encode_image(torch.from_numpy(prepared), normalize=True).numpy()
    np.testing.assert_allclose(encoder.images(prepared), expected, atol=1e-5)
    assert encoder.languages == {"en"}


def test_a_checkpoint_that_runs_code_is_refused_unread(tmp_path: Path) -> None:
    import torch

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    path = tmp_path / "weights.pt"
    torch.save({"state_dict": Trap()}, path)
    with pytest.raises(ConfigError, match="do not load"):
        load_encoder("ViT-S-32-alt", str(path), device="cpu")
    assert not (tmp_path / "ran").exists()


def test_weights_that_cannot_be_downloaded_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process of its own: the hub's library reads its settings when it is imported.
    code = (
        "from vlmdata.errors import ConfigError\n"
        "from vlmdata.measure.encoder import load_encoder\n"
        "try:\n    load_encoder('ViT-B-32', 'openai', device='cpu')\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1, done.stdout
    for part in ("ViT-B-32:openai", "local weights file", "model: starter"):
        assert part in done.stdout


def test_openai_weights_get_quickgelu() -> None:
    from vlmdata.models.load import wants_quick_gelu

    assert wants_quick_gelu("ViT-B-32", "openai")
    assert not wants_quick_gelu("ViT-B-32", "laion2b_s34b_b79k")


@pytest.mark.parametrize("device", ["gpu", "cuda:99999", "meta"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cpu"):
        load_encoder("starter", device=device)


def test_an_unknown_tag_lists_the_tags_there_are() -> None:
    with pytest.raises(ConfigError, match=r"openai.*laion2b"):
        load_encoder("ViT-B-32", "openia", device="cpu")
