"""What the starters' recipe makes of names, descriptions and scores; training itself is run by hand."""

from __future__ import annotations

import importlib
import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
ANNOTATIONS = """<?xml version="1.0" encoding="UTF-8" ?>
<ldml><annotations>
<annotation cp="🐶">Hund | Hundegesicht | Haustier</annotation>
<annotation cp="🐶" type="tts">Hundegesicht</annotation>
<annotation cp="🐱">Katze</annotation>
</annotations></ldml>
"""


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A module of the recipe by name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return lambda name: importlib.import_module(f"starter.{name}")


def test_descriptions_are_told_apart_by_language(part: Callable[[str], ModuleType]) -> None:
    lines = ["A dog. ", "de.utf8=Ein Hund.", "zh_CN.utf8=狗。", "nb.utf8=En hund", "pt_BR.utf8=Um cão", "fr.utf8= "]
    told = part("stamps").descriptions(lines)
    assert told == {"en": "A dog.", "de": "Ein Hund.", "zh": "狗。", "no": "En hund"}
    assert part("stamps").descriptions([]) == {} and "en" not in part("stamps").descriptions(["de.utf8=Ein Hund."])


def test_names_are_taken_over_keywords_and_what_has_none_is_left_out(
    part: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    (tmp_path / "de.xml").write_text(ANNOTATIONS, encoding="utf-8")
    names = part("emoji").names_in(tmp_path, "de")
    assert list(names) == ["🐶"]
    assert names["🐶"].name == "Hundegesicht" and names["🐶"].full == "Hundegesicht, Hund, Haustier"


def test_an_icon_set_draws_characters_without_skin_tones(part: Callable[[str], ModuleType], tmp_path: Path) -> None:
    body = {"body": "<path d='M0 0'/>"}
    icons = {"width": 32, "height": 32, "icons": {"dog-face": body, "hand-light": body, "red-heart": body}}
    chars = {"1f436": "dog-face", "1f44b-1f3fb": "hand-light", "2764-fe0f": "red-heart"}
    archive = tmp_path / "set.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in (("icons", icons), ("chars", chars)):
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}.json")
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    drawn = dict(part("emoji").read_icon_set(archive).drawn())
    assert {character: drawing.title for character, drawing in drawn.items()} == {"🐶": "dog face", "❤": "red heart"}
    assert 'viewBox="0 0 32 32"' in drawn["🐶"].svg


@pytest.mark.parametrize(
    ("name", "as_words"),
    [("redApple_01", "red apple"), ("<b>a&amp;b</b>", "a&b"), ("cat-face 2 3", "cat face"), ("42", "")],
)
def test_names_become_words(part: Callable[[str], ModuleType], name: str, as_words: str) -> None:
    assert part("drawings").words(name) == as_words


def test_recall_counts_ties_against_itself(part: Callable[[str], ModuleType]) -> None:
    recall = part("evaluation").recall
    assert recall(np.eye(20), np.eye(20)) == (100, 100, 100)
    assert recall(np.ones((20, 3)), np.ones((20, 3))) == (0, 0, 0)
    one_off = np.roll(np.eye(20), 1, axis=0) * 2 + np.eye(20)
    assert recall(one_off, np.eye(20)) == (0, 100, 100)
