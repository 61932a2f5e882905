"""The export formats that there are, and what can be asked of any of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

from vlmdata.errors import ConfigError
from vlmdata.export import lance, llava, mds, parquet, webdataset
from vlmdata.export.format import Format, WithExtra, WithFolder
from vlmdata.export.names import folder
from vlmdata.store import Store

FORMATS: dict[str, Format] = {
    "webdataset": webdataset,
    "parquet": parquet,
    "llava": llava,
    "mds": mds,
    "lance": lance,
}


def check_formats(names: Iterable[str]) -> None:
    """Make sure that what they need is installed.

    Raises:
        ConfigError: a package is missing; one line says what to install.
    """
    for name in names:
        format_ = FORMATS[name]
        if isinstance(format_, WithExtra) and importlib.util.find_spec(format_.MODULE) is None:
            raise ConfigError(
                f"export.formats: {name} needs the package {format_.PACKAGE}, which is not installed; "
                f"install vlmdata[{name}], or leave {name} out"
            )


def beside(store: Store, export: str, file: Mapping[str, Any]) -> dict[str, str]:
    """Files that lie beside the one that stands for a shard: path below the export's folder, and sha256.

    Args:
        export: The export's folder.
        file: The shard's file, as MANIFEST.json lists it.
    """
    format_ = FORMATS[file["format"]]
    if not isinstance(format_, WithFolder):
        return {}
    below = folder(file["format"], file.get("split"))
    return {
        f"{below}/{name}": digest for name, digest in format_.beside(store.view(f"{export}/{file['path']}")).items()
    }
