"""Prompts, config, software and how to build a set again, as its card tells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmdata.export.markdown import block, code, table
from vlmdata.export.recipe import config_hash

Prompts = Sequence[Mapping[str, str]]
"""`{"identity", "text"}` each."""


def prompts_section(prompts: Prompts) -> str:
    """What the captioner was asked, word for word."""
    parts = [f"{code(one['identity'])}:\n\n{block(one['text'], 'text')}" for one in prompts]
    return "\n\n".join(["## Prompts", *parts]) if parts else ""


def config_section(config: Mapping[str, Any] | None) -> str:
    """The config as YAML, and its hash."""
    import yaml

    if not config:
        return ""
    dumped = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=110)
    told = (
        "Everything that decides what the set holds; addresses, keys, limits and places are left out. "
        f"Its sha256, as canonical JSON: `{config_hash(config)}`."
    )
    return f"## Config\n\n{told}\n\n{block(dumped, 'yaml')}"


def software_section(software: Mapping[str, str]) -> str:
    """Versions that decide the bytes."""
    return (
        "## Software\n\n" + table(["package", "version"], [list(one) for one in software.items()]) if software else ""
    )


def rebuild_section(manifest: Mapping[str, Any], config: Mapping[str, Any] | None, software: Mapping[str, str]) -> str:
    """Three commands: install, take the config out of the card, build."""
    if not config or "vlmdata" not in software:
        return ""
    commands = [
        f"pip install vlmdata=={software['vlmdata']}",
        "sed -n '/^## Config$/,/^## /p' README.md | sed -n '/^```*yaml$/,/^```*$/p' | sed '/^```/d' > config.yaml",
        f"vlmdata build config.yaml {' '.join(f'--set {place}=…' for place in _places(config))}",
    ]
    told = (
        f"From the same source, this gives the export `{manifest['export']}` again, under `04_final` of the store, "
        "with the same `MANIFEST.json` to the byte; captions of a model are those of the dataset's journal, or what "
        "the model answers now."
    )
    return f"## How to build it again\n\n{block(chr(10).join(commands), 'sh')}\n\n{told}"


def _places(config: Mapping[str, Any]) -> list[str]:
    """Keys that the card does not tell, and a build wants."""
    source, caption = config["source"], config["caption"]
    asked = caption["policy"] != "none" and caption["model"] is not None
    told = {
        "source.path": True,
        "source.captions": source["kind"] == "folder" and bool(source.get("captions")),
        "caption.base_url": asked,
        "caption.prompt": str(caption["prompt"]).endswith(".md"),
    }
    return [name for name, wanted in told.items() if wanted]
