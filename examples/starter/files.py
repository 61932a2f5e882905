"""What is written: weights, config, calibrations and card."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmdata.models.calibration import Bands
from vlmdata.models.source import CONFIG_NAME, content_hash, read_config
from vlmdata.quality.trusted import Trusted

TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class Folder:
    """Where a starter's files are written; `weights` is the name of that file."""

    out: Path
    name: str
    weights: str

    def save(self, model: Any, trained: tuple[str, ...]) -> None:
        """Write what was trained, in half precision, and load it back: what is measured is what ships."""
        from safetensors.torch import load_file, save_file

        path = self.out / self.weights
        state = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(trained)}
        save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, path)
        path.chmod(0o644)  # safetensors leaves it to its owner alone
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()}, strict=False)

    def write_config(self, before: Path, **changes: Any) -> None:
        """Write the config again, with changes such as the towers' hashes."""
        text = json.dumps({**read_config(before), **changes}, indent=2)
        (self.out / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")

    def write_calibration(self, bands: Bands, trusted: Trusted, language: str, note: str, file: str) -> None:
        """Write the bands and the gallery of a language; weights and config must be in place."""
        identity = f"{self.name}@{content_hash([self.out / self.weights, self.out / CONFIG_NAME])}"
        bands.calibration(identity, language, note, **asdict(trusted)).save(self.out / file)

    def write_card(self, template: str, **facts: Any) -> None:
        """Write CARD.md: what was measured, as it fell."""
        text = (TEMPLATES / template).read_text(encoding="utf-8").format(**facts)
        (self.out / "CARD.md").write_text(text, encoding="utf-8")

    @property
    def megabytes(self) -> float:
        """Size of the weights."""
        return (self.out / self.weights).stat().st_size / 1e6
