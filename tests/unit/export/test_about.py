"""What lies beside an export is read by those it is for, goes with every copy, and is replaced with the export."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import mlcroissant
import pyarrow.parquet as pq
import pytest
import yaml
from etils import epath
from PIL import Image

from vlmdata.checkpoint import Dataset, Shard
from vlmdata.config import ExportConfig
from vlmdata.config_reading import parse_config
from vlmdata.errors import UserError
from vlmdata.export.card import CardFacts
from vlmdata.export.card_facts import card_facts
from vlmdata.export.finish import finish_export, locate_export
from vlmdata.export.plan import plan_export
from vlmdata.export.recipe import config_hash, shown_config
from vlmdata.export.shards import export_shard
from vlmdata.health.measure import measure_health
from vlmdata.health.saved import save
from vlmdata.runs import existing_run

Source = Callable[[int], dict[str, bytes]]
Cut = Callable[..., tuple[Dataset, list[Shard]]]
BOTH = ExportConfig(samples_per_shard=4)
PLOTS: CardFacts = {"plots": {"scores": "<svg xmlns='http://www.w3.org/2000/svg'/>"}}


def made(dataset: Dataset, shards: list[Shard], config: ExportConfig = BOTH, facts: CardFacts | None = None) -> Path:
    done = [export_shard(dataset, shard, config) for shard in plan_export(dataset, shards, config)]
    return Path(locate_export(dataset.store, finish_export(dataset, done, config, facts or {})))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def extracted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As CROISSANT_CACHE does it, which is read at the import."""
    extract = importlib.import_module("mlcroissant._src.operation_graph.operations.extract")
    monkeypatch.setattr(extract, "EXTRACT_PATH", epath.Path(tmp_path / "croissant"))


@pytest.fixture
def ten(source: Source, cut: Cut) -> tuple[Dataset, list[Shard]]:
    """Ten samples of three formats in two shards."""
    return cut(source(10), 5)


def test_croissant_is_valid_and_gives_back_every_record(ten: Any) -> None:
    folder = made(*ten)
    found = mlcroissant.Dataset(str(folder / "croissant.json"))
    assert not found.metadata.issues.errors
    assert {record.name for record in found.metadata.record_sets} >= {"parquet", "webdataset"}
    rows = [row for file in sorted(folder.glob("parquet/*")) for row in pq.read_table(file).to_pylist()]
    records = {record["parquet/id"].decode(): record for record in found.records("parquet")}
    assert list(records) == [row["id"] for row in rows]
    for row in rows:
        record = records[row["id"]]
        assert isinstance(record["parquet/image"], Image.Image)
        assert record["parquet/image"].size == (row["width"], row["height"])
        assert (record["parquet/caption"].decode(), record["parquet/width"]) == (row["caption"], row["width"])
        texts = [one["parquet/captions/text"].decode() for one in record["parquet/captions"]]
        assert texts == [one["text"] for one in row["captions"]]


def test_croissant_opens_the_tars_too(ten: Any) -> None:
    folder = made(*ten)
    found = mlcroissant.Dataset(str(folder / "croissant.json"))
    rows = {row["id"]: row for file in folder.glob("parquet/*") for row in pq.read_table(file).to_pylist()}
    records = {record["webdataset/id"].decode(): record for record in found.records("webdataset")}
    assert {key: record["webdataset/caption"].decode() for key, record in records.items()} == {
        key: row["caption"] for key, row in rows.items()
    }
    assert {key: record["webdataset/image"].size for key, record in records.items()} == {
        key: (row["width"], row["height"]) for key, row in rows.items()
    }
    told = [json.loads(record["webdataset-json/json"]) for record in found.records("webdataset-json")]
    assert {one["id"]: one["key"] for one in told} == {key: row["key"] for key, row in rows.items()}


def test_croissant_names_every_column_that_parquet_has(ten: Any) -> None:
    folder = made(*ten)
    schema = pq.read_schema(folder / "parquet/00000.parquet")
    [records] = [
        one for one in json.loads((folder / "croissant.json").read_text())["recordSet"] if one["@id"] == "parquet"
    ]
    assert {field["@id"].removeprefix("parquet/") for field in records["field"]} == set(schema.names)
    [captions] = [field for field in records["field"] if field["@id"] == "parquet/captions"]
    told = {part["@id"].rpartition("/")[2] for part in captions["subField"]}
    assert told == {field.name for field in schema.field("captions").type.value_type}


def test_croissant_notices_a_file_that_is_not_what_was_exported(ten: Any) -> None:
    folder = made(*ten)
    file = folder / "webdataset/00001.tar"
    file.write_bytes(file.read_bytes().replace(b"picture", b"PICTURE", 1))
    found = mlcroissant.Dataset(str(folder / "croissant.json"))
    with pytest.raises(mlcroissant.GenerationError, match="Download"):
        list(found.records("webdataset"))


@pytest.mark.parametrize(
    ("formats", "columns"),
    [
        (("webdataset", "parquet"), {"image", "caption", "captions", "id", "license"}),
        (("parquet",), {"image", "caption", "captions", "id", "license"}),
        (("webdataset",), {"__key__", "json", "txt"}),
    ],
)
def test_a_folder_opens_by_its_card(source: Source, cut: Cut, tmp_path: Path, formats: Any, columns: set[str]) -> None:
    """Tars only if their pictures are all of one format: `datasets` wants members of the same kinds."""
    of_one_format = {key: data for key, data in source(12).items() if key.endswith(".jpeg")}
    folder = made(*cut(of_one_format, 3), ExportConfig(samples_per_shard=2, formats=formats))
    found = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.num_rows == 4 and columns <= set(found.column_names)


def test_the_card_s_own_lines_open_every_format(ten: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(*ten)
    section = (folder / "README.md").read_text().partition("## How to load it")[2].partition("\n## ")[0]
    blocks = [block.partition("```")[0] for block in section.split("```python\n")[1:]]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    counts = []
    for block in blocks:
        *before, last = block.strip().splitlines()
        names: dict[str, Any] = {}
        exec("\n".join(before), names)
        counts.append(sum(1 for _ in eval(last, names)))
    assert counts == [10, 10]


def test_plots_lie_beside_the_card_and_go_with_every_copy(ten: Any, tmp_path: Path) -> None:
    config = ExportConfig(samples_per_shard=4, path=str(tmp_path / "out"))
    out = made(*ten, config, PLOTS)
    # Which plots there are depends on what is installed, and MANIFEST.json on the set alone.
    assert json.loads((out / "MANIFEST.json").read_text())["about"] == ["README.md", "croissant.json"]
    assert {"README.md", "croissant.json", "plots/scores.svg"} < names(out) and "(plots/scores.svg)" in (
        out / "README.md"
    ).read_text()
    original = made(*ten, facts=PLOTS)
    assert {name: (out / name).read_bytes() for name in names(out)} == {
        name: (original / name).read_bytes() for name in names(original)
    }


def test_a_plot_that_a_later_export_has_not_is_removed_from_its_copy(ten: Any, tmp_path: Path) -> None:
    dataset, shards = ten
    config = ExportConfig(samples_per_shard=4, path=str(tmp_path / "out"))
    out = made(dataset, shards, config, PLOTS)
    (out / "plots/mine.svg").write_text("mine")
    made(dataset, shards[:1], config)
    assert "plots/scores.svg" not in names(out) and "plots/mine.svg" in names(out)


def test_a_folder_with_somebody_else_s_croissant_is_left_alone(ten: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/croissant.json").write_text("mine")
    with pytest.raises(UserError, match=r"has a croissant\.json that no export put there"):
        made(*ten, ExportConfig(samples_per_shard=4, path=str(tmp_path / "out")))


@pytest.mark.parametrize("about", [7, [None, "../../precious.svg", "plots/../../precious.svg"], {"a": 1}])
def test_a_manifest_that_names_strange_things_beside_it_removes_none(ten: Any, tmp_path: Path, about: Any) -> None:
    out = tmp_path / "a" / "out"
    out.mkdir(parents=True)
    (tmp_path / "precious.svg").write_text("mine")
    told = {"dataset": "stamps", "export": "1", "files": [], "about": about}
    (out / "MANIFEST.json").write_text(json.dumps(told))
    made(*ten, ExportConfig(samples_per_shard=4, path=str(out)))
    assert (tmp_path / "precious.svg").read_text() == "mine"


@pytest.mark.parametrize("name", ["../x", "A", "a/b", "", "a.b"])
def test_a_plot_s_name_leads_nowhere_else(ten: Any, name: str) -> None:
    with pytest.raises(ValueError, match="expected a name of lower-case letters"):
        made(*ten, facts={"plots": {name: "<svg/>"}})


def test_the_card_of_a_run_tells_its_facts_and_builds_it_again(story: Any, ten: Any, tmp_path: Path) -> None:
    """With the commands that it names, in a shell."""
    run = existing_run(story.dataset)
    save(run, measure_health(run))
    # Without a report, too, the card has its charts.
    folder = made(*ten, facts=card_facts(run, story.config.model_copy(update={"report": False})))
    text = (folder / "README.md").read_text()
    charts = {f"plots/{name}.svg" for name in ("shorter_side", "aspect_ratio", "caption_length", "languages", "scores")}
    assert {f"plots/{path.name}" for path in (folder / "plots").iterdir()} == charts
    assert all(f"]({path})" in text for path in charts)
    for heading in (
        "Sources",
        "Licences",
        "Funnel",
        "Health",
        "Known limits",
        "Config",
        "Software",
        "How to build it again",
    ):
        assert f"\n## {heading}\n" in text
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["license"], head["size_categories"], head["language"]) == ("cc0-1.0", ["n<1K"], ["fr"])
    commands = (
        text.partition("## How to build it again")[2].partition("````sh\n")[2].partition("\n````")[0].splitlines()
    )
    assert len(commands) == 3 and commands[2].startswith("vlmdata build config.yaml --set source.path=…")
    subprocess.run(commands[1], shell=True, check=True, cwd=folder)
    again = yaml.safe_load((folder / "config.yaml").read_text())
    assert parse_config({**again, "store": story.config.store}).settings().keys() == story.config.settings().keys()
    assert again == shown_config(story.config) and config_hash(again) in text
    assert str(tmp_path) not in text and str(Path(story.config.store).parent) not in text
