"""What a build follows from: files that a config names count by what they hold, not by their name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmdata.errors import ConfigError
from vlmdata.export.selection.make_list import make_list
from vlmdata.ingest.listing import list_source
from vlmdata.layout import Stage
from vlmdata.runs import fingerprint


def told(set_: Any) -> str:
    config = set_.config.model_copy(update={"quality": set_.config.quality.model_copy(update={"model": "starter"})})
    return fingerprint(set_.dataset, config, list_source(set_.dataset, config), Stage.FINAL)


def test_an_opt_out_list_that_says_something_else_is_another_build(
    tiny: Callable[..., Any], pictures: Any, tmp_path: Path
) -> None:
    names = tmp_path / "opt_out.txt"
    names.write_text("example.org\n")
    set_ = tiny({"a.png": pictures.png(1)}, opt_out=str(names))
    before = told(set_)
    names.write_text("example.org # as before\n")
    assert told(set_) == before
    names.write_text("example.net\n")
    assert told(set_) != before


def test_a_list_of_an_evaluation_set_that_holds_something_else_is_another_build(
    tiny: Callable[..., Any], pictures: Any, tmp_path: Path
) -> None:
    folder, listed = tmp_path / "evaluation", tmp_path / "toy.parquet"
    folder.mkdir()
    (folder / "1.png").write_bytes(pictures.png(1))
    make_list(str(folder), "toy", listed, None)
    set_ = tiny({"a.png": pictures.png(1)}, export={"decontaminate": {"lists": [str(listed)]}})
    before = told(set_)
    make_list(str(folder), "toy", listed, None)
    assert told(set_) == before
    (folder / "2.png").write_bytes(pictures.png(2))
    make_list(str(folder), "toy", listed, None)
    assert told(set_) != before


def test_before_the_stages_of_models_no_weights_are_asked_for(tiny: Callable[..., Any], pictures: Any) -> None:
    set_ = tiny({"a.png": pictures.png(1)}, quality={"model": "/nowhere", "pretrained": None})
    listing = list_source(set_.dataset, set_.config)
    early = {fingerprint(set_.dataset, set_.config, listing, to) for to in (Stage.RAW, Stage.FILTERED, Stage.CAPTIONED)}
    assert len(early) == 3, "how far a run went is a part of what it made"
    with pytest.raises(ConfigError):
        fingerprint(set_.dataset, set_.config, listing, Stage.CHECKED)
