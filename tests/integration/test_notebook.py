"""The notebook that ships with the project, run cell by cell inside a kernel's event loop."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import ROOT, environment
from tests.integration.sample import config_of

pytestmark = pytest.mark.integration


def test_the_notebook_builds_the_sample(server: PrefectServer, sample: Path, tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    shutil.copytree(sample, folder / "stamps")
    notebook = _shipped()
    _accept_everything(notebook)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment(**server.environment))
    assert "'completed'" in _answer(notebook, "build_dataset(config)")
    assert "near_duplicate" in _answer(notebook, 'row["reasons"]')
    assert "01_filtered" in _answer(notebook, "explain(")
    assert "caption" in _answer(notebook, "to_pandas()")
    assert list((tmp_path / "store" / "stamps" / "04_final").glob("*/webdataset/*.tar"))


def test_the_notebook_ships_without_output() -> None:
    notebook = _shipped()
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


def _shipped() -> Any:
    text = (ROOT / "examples" / "build.ipynb").read_text(encoding="utf-8")
    return nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]


def _accept_everything(notebook: Any) -> None:
    """The small sample is built whatever the starter thinks of it."""
    quality = config_of(Path(), "")["quality"]
    written = ", ".join(f"{name}={quality[name]}" for name in ("accept_above", "reject_below"))
    (cell,) = [cell for cell in notebook.cells if "QualityConfig(model" in cell.source]
    cell.source = cell.source.replace("pretrained=None", f"pretrained=None, {written}")
    assert written in cell.source


def _answer(notebook: Any, source: str) -> str:
    """What the cell that holds `source` showed."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and source in cell.source]
    return "".join(output.get("data", {}).get("text/plain", "") for output in cell.outputs)
