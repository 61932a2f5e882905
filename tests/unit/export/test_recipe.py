"""The config on a card decides what it decided, and tells nobody's paths, addresses or secrets."""

from __future__ import annotations

from typing import Any

import pytest

from vlmdata.config_reading import parse_config
from vlmdata.export.recipe import LIBRARIES, config_hash, shown_config, software

SECRET = "SECRET-5f3a"


def config(**sections: Any) -> Any:
    source = {"kind": "folder", "path": "/home/somebody/pictures"}
    return parse_config({"dataset": "set", "source": source, **sections})


def test_no_place_address_or_secret_is_told() -> None:
    shown = shown_config(
        config(
            store=f"s3://{SECRET}/x",
            source={"kind": "urls", "path": f"s3://{SECRET}:{SECRET}@bucket/{SECRET}/list.parquet?token={SECRET}"},
            caption={
                "base_url": f"http://user:{SECRET}@host/v1",
                "model": "gpt",
                "api_key_env": SECRET.replace("-", "_"),
                "prompt": f"/home/{SECRET}/mine.md",
            },
            quality={"model": f"/models/{SECRET}/vit", "pretrained": f"./{SECRET}/weights.pt"},
            network={"user_agent": SECRET},
            opt_out=f"/{SECRET}/list.txt",
            export={"path": f"/{SECRET}"},
        )
    )
    assert SECRET not in repr(shown)
    assert shown["source"]["path"] == "list.parquet" and shown["caption"]["prompt"] == "mine.md"
    assert (shown["quality"]["model"], shown["quality"]["pretrained"]) == ("vit", "weights.pt")


@pytest.mark.parametrize("name", ["hf-hub:owner/name", "ViT-B-32", "starter"])
def test_a_model_s_name_is_told_whole(name: str) -> None:
    assert shown_config(config(quality={"model": name, "pretrained": None}))["quality"]["model"] == name


def test_a_prompt_s_own_words_are_told_whole() -> None:
    words = "Say what it is; as in example.md. /Then stop."
    assert shown_config(config(caption={"prompt": words}))["caption"]["prompt"] == words


def test_the_hash_is_of_what_decides_and_of_nothing_else() -> None:
    plain = config_hash(shown_config(config()))
    elsewhere = {"kind": "folder", "path": "/srv/pictures"}
    assert config_hash(shown_config(config(store="/elsewhere", source=elsewhere, shard_size=7))) == plain
    assert config_hash(shown_config(config(filter={"min_side": 225}))) != plain


def test_versions_are_those_that_are_installed() -> None:
    import numpy
    import PIL

    found = software()
    assert (found["numpy"], found["pillow"]) == (numpy.__version__, PIL.__version__)
    assert set(found) - {"vlmdata", "python"} <= set(LIBRARIES)
