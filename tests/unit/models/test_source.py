"""Which model is meant, and a name for its content, without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlmdata.errors import ConfigError
from vlmdata.models.source import describe, model_identity, resolve


def folder(path: Path, weights: bytes = b"w", **config: object) -> Path:
    path.mkdir(exist_ok=True)
    (path / "open_clip_model.safetensors").write_bytes(weights)
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"text_cfg": {}}, **config}))
    return path


def test_identities_are_found_without_heavy_imports(tmp_path: Path) -> None:
    local = folder(tmp_path / "local")
    code = (
        "import sys\n"
        "from vlmdata.measure.encoder import describe, model_identity\n"
        "from vlmdata.models.calibration import thresholds_for\n"
        "for model, tag in (('starter', None), ('ViT-B-32', 'openai'), (sys.argv[1], None)):\n"
        "    print(describe(model, tag).identity, thresholds_for(model, tag).accept_above)\n"
        "heavy = {'torch', 'open_clip', 'timm', 'transformers', 'pandas'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, local], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_tags_are_named_by_model_and_tag() -> None:
    assert model_identity("ViT-B-32", "openai") == "ViT-B-32:openai"
    assert model_identity("ViT-B-32", "laion2b-s34b-b79k") == model_identity("ViT-B-32", "laion2b_s34b_b79k")


def test_hub_models_are_named_by_their_name() -> None:
    assert resolve("hf-hub:someone/model").kind == "hub"
    assert model_identity("hf-hub:someone/model") == "hf-hub:someone/model"


def test_local_models_are_named_by_content_wherever_they_lie(tmp_path: Path) -> None:
    here, there = folder(tmp_path / "a", b"same"), tmp_path / "sub"
    there.mkdir()
    same = folder(there / "a", b"same")
    assert model_identity(str(here)) == model_identity(str(same))
    (same / "open_clip_model.safetensors").write_bytes(b"else")
    assert model_identity(str(here)) != model_identity(str(same))


def test_a_weights_file_is_named_by_model_and_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    first.write_bytes(b"same")
    second.write_bytes(b"same")
    assert model_identity("ViT-B-32", str(first)) == model_identity("ViT-B-32", str(second))
    assert model_identity("ViT-B-32", str(first)) != model_identity("ViT-B-16", str(first))


def test_a_file_that_changes_in_place_gets_another_name(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"1")
    before = model_identity("ViT-B-32", str(weights))
    weights.write_bytes(b"2")
    os.utime(weights, ns=(1, 1))
    assert model_identity("ViT-B-32", str(weights)) != before


def test_a_tokenizer_beside_the_weights_counts_and_a_calibration_does_not(tmp_path: Path) -> None:
    local = folder(tmp_path / "m")
    before = model_identity(str(local))
    (local / "calibration.json").write_text("{}")
    (local / "calibration.zh.json").write_text("{}")
    assert model_identity(str(local)) == before
    (local / "tokenizer.json").write_text("{}")
    assert model_identity(str(local)) != before


@pytest.mark.parametrize(
    ("model", "tag", "known", "unknown"),
    [
        ("starter", None, {"en"}, "zh"),
        ("ViT-B-32", "openai", {"en"}, "zh"),
        ("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k", {"en", "zh", "fr", "ja"}, "tlh"),
        ("nllb-clip-base", "v1", {"en", "zh", "ig"}, "tlh"),
        ("ViT-B-16-SigLIP2-256", "webli", {"en", "zh", "de"}, "tlh"),
        ("ViT-B-16-SigLIP-256", "webli", {"en"}, "zh"),
    ],
)
def test_languages_are_those_of_the_text_tower(model: str, tag: str | None, known: set[str], unknown: str) -> None:
    languages = describe(model, tag).languages
    assert known <= languages and unknown not in languages


def test_a_folder_may_declare_its_languages(tmp_path: Path) -> None:
    assert describe(str(folder(tmp_path / "m", languages=["is", "fo"]))).languages == {"is", "fo"}


@pytest.mark.parametrize(
    ("model", "tag", "told"),
    [
        ("ViT-B-23", "openai", "nearest: .*ViT-B-32"),
        ("startre", None, "nearest: .*starter"),
        ("ViT-B-32", None, "needs a tag"),
        ("ViT-B-32", "gone/weights.safetensors", "is not there"),
        ("", None, "no open_clip model"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(model: str, tag: str | None, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        resolve(model, tag)
    assert "\n" not in str(caught.value)


def test_a_folder_without_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no open_clip_config\.json"):
        resolve(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="found none"):
        resolve(str(tmp_path))
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"found a\.bin, b\.bin"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_config_is_told(tmp_path: Path, content: str) -> None:
    local = folder(tmp_path / "m")
    (local / "open_clip_config.json").write_text(content)
    with pytest.raises(ConfigError, match="open_clip config"):
        describe(str(local))
