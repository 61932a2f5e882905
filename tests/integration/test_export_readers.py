"""An export read by what lives in an environment of its own: MDS by mosaicml's StreamingDataset."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from tests.integration.processes import ROOT, environment, started
from tests.unit.export.conftest import captions_of, checked_shard, originals, samples_of
from vlmdata.checkpoint import Dataset
from vlmdata.config import ExportConfig
from vlmdata.export.finish import finish_export
from vlmdata.export.pixels import finished
from vlmdata.export.plan import plan_export
from vlmdata.export.rows import with_captions
from vlmdata.export.shards import export_shard

PYTHON = ROOT / ".venv-streaming" / "bin" / "python"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"{PYTHON} is not there; `make test` installs it"),
]

SAMPLES = 11
PAGE = (ROOT / "docs/exports.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export in MDS, of three shards."""
    dataset = Dataset(str(tmp_path_factory.mktemp("mds") / "store"), "stamps")
    config = ExportConfig(formats=("mds",), samples_per_shard=4)
    planned = plan_export(dataset, [checked_shard(dataset, "00000", originals(SAMPLES))], config)
    done = [export_shard(dataset, shard, config) for shard in planned]
    return Path(dataset.store.locate(finish_export(dataset, done, config, {})))


@dataclass(frozen=True)
class Said:
    """What `read_mds.py` said of the export, what the page's code printed, and what became of a damaged copy."""

    whole: list[str]
    shown: list[str]
    hurt: list[str]
    error: str


@pytest.fixture(scope="module")
def said(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Said:
    folder = tmp_path_factory.mktemp("read")
    shutil.copytree(place / "mds", folder / "hurt")
    file = folder / "hurt" / "00001.mds"
    hurt = bytearray(file.read_bytes())
    hurt[-1] ^= 1
    file.write_bytes(hurt)
    (folder / "export").symlink_to(place)
    [code] = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "streaming" in block]
    (folder / "shown.py").write_text(code, encoding="utf-8")
    script = str(Path(__file__).with_name("read_mds.py"))
    command = [str(PYTHON), script, str(place / "mds"), str(folder / "hurt"), "shown.py", str(folder / "cache")]
    with started(command, environment(), subprocess.PIPE, subprocess.PIPE, cwd=folder) as reading:
        out, error = (text.decode() for text in reading.communicate(timeout=240))
    assert out.count("next\n") == 2, error
    whole, shown, of_hurt = (part.splitlines() for part in out.split("next\n"))
    return Said(whole, shown, of_hurt, error)


def rows() -> pa.Table:
    """What the export says of its samples."""
    samples = samples_of(originals(SAMPLES))
    return with_captions(samples, captions_of(samples["id"].to_pylist()))


def test_streaming_dataset_reads_every_sample(said: Said) -> None:
    read = [json.loads(line) for line in said.whole]
    pictures = [finished(data, 95) for data in originals(SAMPLES).values()]
    assert len(read) == SAMPLES
    for sample, row, picture in zip(read, rows().to_pylist(), pictures, strict=True):
        assert (sample["id"], sample["caption"]) == (row["id"], row["caption"])
        assert sample["bytes"] == picture.sha256
        with Image.open(io.BytesIO(picture.data)) as ours:
            assert sample["format"] == ours.format
            assert sample["pixels"] == sha256(ours.convert("RGB").tobytes()).hexdigest()
        assert sample["columns"] == ["caption", "id", "image", "json"]
        assert [caption["text"] for caption in sample["json"]["captions"]] == [one["text"] for one in row["captions"]]
        assert (sample["json"]["key"], sample["json"]["license"]) == (row["key"], row["license"])
        assert sample["json"]["phash"] == f"{row['phash']:016x}"
    assert {sample["format"] for sample in read} == {"JPEG", "PNG", "WEBP"}


def test_it_refuses_a_shard_that_is_not_what_the_index_says(said: Said) -> None:
    """Its own check of sha256, which the index carries."""
    assert "Checksum failure" in said.error and len(said.hurt) < SAMPLES, said.error[-300:]


def test_what_the_page_shows_reads_it(said: Said) -> None:
    assert said.shown == [str(SAMPLES)]
