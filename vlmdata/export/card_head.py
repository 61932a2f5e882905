"""The YAML head of a card, as hubs read it.

https://huggingface.co/docs/hub/datasets-cards and
https://huggingface.co/docs/hub/datasets-manual-configuration
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from vlmdata.export.tallies import Tallies

OTHER = "other"
_LICENCES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc0-1.0
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gfdl gpl gpl-2.0 gpl-3.0
    isc lgpl lgpl-2.1 lgpl-3.0 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 osl-3.0 pddl postgresql unlicense
    wtfpl zlib
    """.split()
)
"""Identifiers that a hub knows; any other licence is `OTHER`, and none is `unknown`."""
_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/(?:licenses/([a-z-]+)/(\d\.\d)|publicdomain/(zero)/1\.0)")
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_BORDERS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_LOADED = ("parquet", "webdataset")
"""Formats that `datasets.load_dataset` opens, the best first: a folder has one loader, whatever lies beside it."""


def head(manifest: Mapping[str, Any], tallies: Tallies) -> str:
    """YAML between two lines of `---`; every value is one that hubs know, or is quoted."""
    import yaml

    told = {
        "pretty_name": re.sub("[<>]", "", str(manifest["dataset"])),
        "license": _one_or_more(licences(tallies.get("license", Counter()))),
        "language": languages(tallies.get("language", Counter())),
        "task_categories": ["image-to-text", "text-to-image"],
        "size_categories": [size_category(manifest["samples"])],
        "tags": ["image-text-pairs", "vision-language", "vlmdata"],
        "configs": configs(manifest["files"]),
    }
    said = {name: value for name, value in told.items() if value}
    return f"---\n{yaml.safe_dump(said, sort_keys=False, allow_unicode=True)}---"


def licences(counts: Mapping[str | None, int]) -> list[str]:
    """The hub's names of all licences that samples state, sorted."""
    return sorted({hub_licence(value) for value in counts})


def hub_licence(stated: str | None) -> str:
    """The hub's name of a licence: `GPL-2.0-or-later` is `gpl-2.0`; an address of Creative Commons is its licence."""
    if stated is None or not stated.strip():
        return "unknown"
    plain = stated.strip().lower()
    if found := _CREATIVE_COMMONS.search(plain):
        plain = "cc0-1.0" if found[3] else f"cc-{found[1]}-{found[2]}"
    plain = re.sub(r"[\s_]+", "-", plain)
    plain = re.sub(r"-(?:only|or-later)$", "", plain)
    return plain if plain in _LICENCES else OTHER


def languages(counts: Mapping[str | None, int]) -> list[str]:
    """ISO 639 codes of what captions declare, sorted; what is none is left out."""
    primary = {re.split(r"[-_]", tag, maxsplit=1)[0].lower() for tag in counts if tag}
    return sorted(tag for tag in primary if _LANGUAGE.fullmatch(tag))


def size_category(samples: int) -> str:
    """The hub's name of a number of samples."""
    places = max(len(str(samples)) - 3, 0)
    if places == 0:
        return f"n<{_BORDERS[0]}"
    return f"{_BORDERS[places - 1]}<n<{_BORDERS[places]}" if places < len(_BORDERS) else f"n>{_BORDERS[-1]}"


def configs(files: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What `datasets.load_dataset` opens of a folder: the files of one format."""
    known = [file for file in files if "path" in file]
    name = next((name for name in _LOADED if any(file["format"] == name for file in known)), None)
    patterns = {
        str(file.get("split") or "train"): _pattern(str(file["path"])) for file in known if file["format"] == name
    }
    told = [{"split": split, "path": pattern} for split, pattern in patterns.items()]
    return [{"config_name": "default", "data_files": told}] if told else []


def _pattern(path: str) -> str:
    there = PurePosixPath(path)
    return str(there.with_name(f"*{there.suffix}"))


def _one_or_more(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values
