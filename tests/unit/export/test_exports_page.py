"""What docs/exports.md shows is run as it stands, on an export in every format."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.export.conftest import checked_shard, originals
from vlmdata.checkpoint import Dataset
from vlmdata.config import ExportConfig
from vlmdata.export.finish import finish_export
from vlmdata.export.formats import FORMATS
from vlmdata.export.plan import plan_export
from vlmdata.export.shards import export_shard

PAGE = (Path(__file__).resolve().parents[3] / "docs/exports.md").read_text(encoding="utf-8")
SHOWN = {block.split()[1].rstrip(","): block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}
SAMPLES = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `export` is an export of three shards."""
    made = tmp_path_factory.mktemp("page")
    dataset = Dataset(str(made / "store"), "stamps")
    config = ExportConfig(samples_per_shard=4, formats=tuple(FORMATS), path=str(made / "export"))
    planned = plan_export(dataset, [checked_shard(dataset, "00000", originals(SAMPLES))], config)
    finish_export(dataset, [export_shard(dataset, shard, config) for shard in planned], config, {})
    return made


def test_every_format_has_its_reader_shown() -> None:
    assert list(SHOWN) == ["webdataset", "datasets", "json", "streaming", "lance"]
    assert re.findall(r"^\| `([a-z]+)` \|", PAGE, re.MULTILINE) == list(FORMATS)


@pytest.mark.parametrize("reader", ["webdataset", "datasets", "json", "lance"])
def test_it_reads_every_sample(
    reader: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    exec(compile(SHOWN[reader], "docs/exports.md", "exec"), {})
    assert capsys.readouterr().out == f"{SAMPLES}\n"
