"""Imports go one way, and the front door opens without the heavy furniture."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vlmdata

ROOT = Path(__file__).parents[2]
HEAVY = {
    "prefect",
    "torch",
    "great_expectations",
    "pandas",
    "transformers",
    "open_clip",
    "timm",
    "numba",
    "scipy",
    "duckdb",
    "s3fs",
}


def loaded_by(script: str) -> set[str]:
    """The heavy libraries that a fresh interpreter has loaded after a script."""
    names = f"import json, sys; print(json.dumps(sorted({HEAVY!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", f"{script}\n{names}"], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_layers_hold() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(tool), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_layers_are_those_of_the_house() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    [layers] = [contract for contract in contracts if contract["type"] == "layers"]
    assert layers["layers"] == ["flows", "tasks", "expectations", "vlmdata"]
    assert {exception.split(" -> ")[0] for exception in layers["ignore_imports"]} == {"vlmdata.cli"}


def test_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import vlmdata") == set()


def test_help_loads_nothing_heavy() -> None:
    ask = "import sys; sys.argv = ['vlmdata', '--help']"
    script = f"{ask}\nfrom vlmdata.cli import main\ntry: main()\nexcept SystemExit: pass"
    assert loaded_by(script) == set()


# Made of numba or torch, and imported only where they are about to run.
LATE = {
    "vlmdata.filtering.hamming_kernels",
    "vlmdata.models.starter.head",
    "vlmdata.models.starter_multilingual.text_tower",
}


# A room of its own for what is made of torch.
ENGINE = "vlmdata.training.engine"


def modules() -> list[str]:
    found = [module.name for module in pkgutil.walk_packages(vlmdata.__path__, "vlmdata.")]
    return sorted(name for name in set(found) - LATE if not name.startswith(f"{ENGINE}."))


def test_no_module_loads_torch_or_the_orchestrator_by_being_imported() -> None:
    script = f"import importlib\nfor name in {modules()!r}: importlib.import_module(name)"
    assert loaded_by(script) & {"prefect", "torch", "great_expectations", "open_clip", "timm", "transformers"} == set()


def test_the_library_works_where_there_is_no_orchestrator(tmp_path: Path) -> None:
    """Prefect and Great Expectations stand in the way as modules that cannot be imported."""
    for name in ("prefect", "great_expectations"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    script = f"import importlib\nfor name in {modules()!r}: importlib.import_module(name)"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["vlmdata", "tasks", "flows", "expectations"])
def test_no_module_is_out_of_reach(folder: str) -> None:
    """A folder without `__init__.py` would be left out of the wheel."""
    packages = {path.parent for path in (ROOT / folder).rglob("*.py")}
    assert [path for path in packages if not (path / "__init__.py").exists()] == []
