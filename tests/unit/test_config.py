"""The config file: what it means, where its paths are, and what people are told of their mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from vlmdata.config import BuildConfig
from vlmdata.config_reading import load_config, parse_config
from vlmdata.errors import ConfigError

SMALLEST: dict[str, Any] = {"dataset": "set", "source": {"kind": "folder", "path": "/pictures"}}


def refused(raw: Any) -> str:
    with pytest.raises(ConfigError) as error:
        parse_config(raw, "config.yaml")
    message = str(error.value)
    assert message.startswith("config.yaml: ")
    assert "\n" not in message
    return message.removeprefix("config.yaml: ")


def written(folder: Path, text: str) -> Path:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qualty": {}}, "unknown key 'qualty'; did you mean 'quality'?"),
        ({"filter": {"min_sid": 3}}, "unknown key 'filter.min_sid'; did you mean 'filter.min_side'?"),
        ({"source": {"kind": "folder", "pth": "x"}}, "unknown key 'source.pth'; did you mean 'source.path'?"),
        (
            {"source": {"kind": "parquet", "path": "x", "caption_colum": "y"}},
            "unknown key 'source.caption_colum'; did you mean 'source.caption_column'?",
        ),
        (
            {"quality": {"languages": {"zh": {"model": "m", "pretraind": "x"}}}},
            "unknown key 'quality.languages.zh.pretraind'; did you mean 'quality.languages.zh.pretrained'?",
        ),
        ({"dedup": {"zzzz": 1}}, "unknown key 'dedup.zzzz'; known here: max_distance, confirm"),
        ({"source": {"path": "x"}}, "the key 'source.kind' is missing: expected one of folder, webdataset, parquet"),
        ({"source": {"kind": "zip", "path": "x"}}, "source.kind = 'zip': expected one of folder, webdataset, parquet"),
        ({"source": {"kind": "folder"}}, "the key 'source.path' is missing"),
        ({"source": "pictures"}, "source = 'pictures': expected a mapping of keys"),
        ({"filter": None}, "filter = None: expected a mapping of keys"),
        ({"filter": {"min_side": -1}}, "filter.min_side = -1: expected greater than 0"),
        ({"filter": {"decode_timeout_s": float("inf")}}, "filter.decode_timeout_s = inf: expected a finite number"),
        ({"engine": "thread"}, "engine = 'thread': expected 'threads', 'processes' or 'ray'"),
        ({"caption": {"max_retries": 4}}, "caption.max_retries = 4: expected less than or equal to 3"),
        ({"dedup": {"max_distance": 17}}, "dedup.max_distance = 17: expected less than or equal to 16"),
        ({"export": {"formats": []}}, "export.formats = []: expected at least 1 item after validation, not 0"),
        (
            {"export": {"formats": ["tar"]}},
            "export.formats.0 = 'tar': expected 'webdataset', 'parquet', 'llava', 'mds' or 'lance'",
        ),
        (
            {"export": {"splits": {"train": 0.5, "test": 0.4}}},
            "export.splits = {'train': 0.5, 'test': 0.4}: expected shares that add up to 1, not 0.9",
        ),
        ({"quality": {"languages": {False: {"model": "m"}}}}, "expected text as keys, not False; put it in quotes"),
        ({"shard_size": "many"}, "shard_size = 'many': expected a valid integer"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    assert message in refused({**SMALLEST, **change})


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ({"mode": "resize"}, "side = None: expected pixels, such as 512, with mode = 'resize'"),
        ({"mode": "pad"}, "side = None: expected pixels, such as 512, with mode = 'pad'"),
        ({"side": 512}, "side = 512: expected null with mode = 'keep', or mode = 'resize' or 'pad'"),
        ({"mode": "resize", "side": 0}, "side = 0: expected greater than 0"),
        ({"mode": "resize", "side": 16_384}, "side = 16384: expected less than or equal to 16383"),
        ({"mode": "pad", "side": 9, "by": "shorter"}, "by = 'shorter': expected 'longest' with mode = 'pad'"),
        ({"mode": "resize", "side": 9, "color": "red"}, "color = 'red': expected '#ffffff' with mode = 'resize'"),
        ({"mode": "resize", "side": 9, "position": "top"}, "position = 'top': expected 'center' with mode = 'resize'"),
        ({"interpolation": "box"}, "interpolation = 'box': expected 'lanczos' with mode = 'keep'"),
        (
            {"mode": "pad", "side": 9, "color": "reddish"},
            "color = 'reddish': expected an opaque colour: a name such as",
        ),
        ({"mode": "pad", "side": 9, "color": "#ffffff80"}, "color = '#ffffff80': expected an opaque colour"),
        ({"mode": "pad", "side": 9, "position": "middle"}, "position = 'middle': expected 'center', 'top', "),
        ({"mode": "stretch", "side": 9}, "mode = 'stretch': expected 'keep', 'resize' or 'pad'"),
        ({"formats": ["gif"]}, "formats.0 = 'gif': expected 'jpg', 'png' or 'webp'"),
        ({"formats": ["jpg"], "encode_as": "png"}, "encode_as = 'png': expected auto or one of export.pixels.formats"),
    ],
)
def test_pixels_that_cannot_be_had_are_named(pixels: dict[str, Any], message: str) -> None:
    assert refused({**SMALLEST, "export": {"pixels": pixels}}).startswith(f"export.pixels.{message}")


def test_a_colour_is_the_same_however_it_is_written() -> None:
    square = {"mode": "pad", "side": 9}
    written = ["red", "Red", "#f00", "#FF0000", "rgb(255, 0, 0)", "hsl(0, 100%, 50%)"]
    configs = [parse_config({**SMALLEST, "export": {"pixels": {**square, "color": color}}}) for color in written]
    assert {config.export.pixels.color for config in configs} == {"#ff0000"}


def test_a_misspelt_key_is_told_before_the_one_that_is_then_missing() -> None:
    assert "did you mean 'source'" in refused({"dataset": "x", "sorce": {}})


def test_a_band_is_a_number_or_auto() -> None:
    message = refused({**SMALLEST, "quality": {"accept_above": "high"}})
    assert message.startswith("quality.accept_above = 'high': expected a valid number")
    assert message.endswith("or 'auto'")


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "..", "a b", "ä"])
def test_names_that_could_leave_their_folder(name: str) -> None:
    assert "expected a name of letters" in refused({**SMALLEST, "dataset": name})


@pytest.mark.parametrize("raw", [None, [], "text", 3])
def test_what_is_no_mapping(raw: Any) -> None:
    assert "expected a mapping" in refused(raw)


def test_long_values_are_cut() -> None:
    assert len(refused({**SMALLEST, "engine": "x" * 5_000})) < 200


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_yaml_is_a_config_or_one_line(raw: Any) -> None:
    for trial in (
        raw,
        {**SMALLEST, "filter": raw},
        {**SMALLEST, "source": raw},
        {**SMALLEST, "quality": {"languages": raw}},
    ):
        try:
            parse_config(trial)
        except ConfigError as error:
            assert len(str(error).splitlines()) == 1


def test_relative_paths_lie_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = """
dataset: set
source: {kind: folder, path: ./pictures, captions: sub/captions.jsonl}
quality: {model: ./model, languages: {zh: {model: ./zh, pretrained: ViT-B-32}}}
export: {path: ../out}
"""
    config = load_config(written(tmp_path, text))
    assert config.source.path == str(tmp_path / "pictures")
    assert config.model_dump()["source"]["captions"] == str(tmp_path / "sub/captions.jsonl")
    assert config.store == str(tmp_path / "store")
    assert config.export.path == str(tmp_path.parent / "out")
    assert config.quality.model == str(tmp_path / "model")
    assert (config.quality.languages["zh"].model, config.quality.languages["zh"].pretrained) == (
        str(tmp_path / "zh"),
        "ViT-B-32",
    )


def test_relative_paths_of_the_command_line_lie_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, "dataset: set\nsource: {kind: folder, path: a}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_config(file, ["store=./s", "source.path=b"])
    assert (config.store, config.source.path) == (str(tmp_path / "elsewhere/s"), str(tmp_path / "elsewhere/b"))


@pytest.mark.parametrize("address", ["s3://bucket/prefix", "file:///data"])
def test_addresses_stay(tmp_path: Path, address: str) -> None:
    text = f"dataset: set\nstore: {address}\nsource: {{kind: folder, path: {address}}}\n"
    config = load_config(written(tmp_path, text))
    assert (config.store, config.source.path) == (address, address)


def test_overrides_are_yaml_and_reach_into_sections(tmp_path: Path) -> None:
    file = written(tmp_path, "dataset: set\nsource: {kind: folder, path: a}\nfilter: {min_side: 9, max_pixels: 5}\n")
    config = load_config(file, ["filter.min_side=300", "export.formats=[parquet]", "filter.max_aspect_ratio=null"])
    assert (config.filter.min_side, config.filter.max_pixels, config.export.formats) == (300, 5, ("parquet",))


def test_an_override_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    text = "dataset: x\nsource: {kind: folder, path: p}\ncaption: {prices: {m: {input: 1, output: 2}}}\n"
    file = written(tmp_path, text)
    assert load_config(file, ["caption.prices={}"]).caption.prices == {}
    with pytest.raises(ConfigError, match=r"--set 'dataset\.name=y': 'dataset' holds a plain value"):
        load_config(file, ["dataset.name=y"])
    file = written(tmp_path, f"{text}quality:\n")
    assert load_config(file, ["quality.model=starter"]).quality.model == "starter"


@pytest.mark.parametrize("override", ["filter", "=3", "filter.min_side=[", ""])
def test_overrides_that_are_none(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_config(written(tmp_path, "dataset: x\n"), [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not valid YAML"),
        (b"\xff\xfe\0", "cannot be read as text"),
        (b"- a", "expected a mapping"),
        (b"", "expected a mapping"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(tmp_path / "config.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["missing.yaml", "."])
def test_files_that_are_not_there(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match=r"no such config file|cannot be read"):
        load_config(tmp_path / path)


def sections(model: type[BaseModel]) -> dict[str, Any]:
    return {name: field.annotation for name, field in model.model_fields.items()}


def test_settings_leave_out_how_a_run_is_done() -> None:
    settings = parse_config(SMALLEST).settings()
    assert not {"store", "engine", "shard_size"} & set(settings)
    assert not {"base_url", "api_key_env", "concurrency", "max_retries", "timeout_s"} & set(settings["caption"])
    assert not {"decode_timeout_s", "workers"} & set(settings["filter"])
    assert settings["filter"]["min_side"] == 224
    assert settings["export"]["formats"] == ["webdataset", "parquet"]


def test_configs_compare_and_never_change() -> None:
    config = parse_config(SMALLEST)
    assert config == parse_config(config.model_dump(mode="json"))
    with pytest.raises(ValueError, match="frozen"):
        config.dataset = "other"  # type: ignore[misc]


def test_the_schema_describes_every_field_of_every_section() -> None:
    schema = BuildConfig.model_json_schema()
    undescribed = [
        f"{name}.{key}"
        for name, section in {"": schema, **schema["$defs"]}.items()
        for key, field in section.get("properties", {}).items()
        if not field.get("description") and "$ref" not in field and "const" not in field
    ]
    assert undescribed == []
