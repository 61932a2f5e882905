"""Identification is measured on the sample's own labelled captions; words are counted in any script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata.measure.language import UNDETERMINED, identify, knows, primary, same_language, word_count

SAMPLE = Path(__file__).parents[3] / "examples" / "stamps" / "captions.jsonl"


def labelled(shortest: int) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    captions = [caption for row in rows for caption in row.get("captions", []) if caption.get("lang")]
    return [(one["text"], one["lang"]) for one in captions if len(one["text"] or "") >= shortest]


def test_accuracy_on_the_samples_captions_of_20_characters_or_more() -> None:
    rows = labelled(20)
    found = identify([text for text, _ in rows])
    right = [tag == label for (tag, _), (_, label) in zip(found, rows, strict=True)]
    sure = [ok for ok, (_, probability) in zip(right, found, strict=True) if probability >= 0.9]
    assert len(rows) > 300
    assert sum(right) / len(right) >= 0.85
    assert len(sure) > 100
    assert sum(sure) / len(sure) >= 0.99


def test_each_language_of_the_sample_is_known_and_found() -> None:
    rows = labelled(20)
    for language in {label for _, label in rows}:
        assert knows(language)
        tags = [tag for tag, _ in identify([text for text, label in rows if label == language])]
        assert tags.count(language) / len(tags) >= 0.65, language


def test_one_thread_or_many_find_the_same() -> None:
    texts = [text for text, _ in labelled(30)][:40]
    with ThreadPoolExecutor(4) as pool:
        assert [one for [one] in pool.map(lambda text: identify([text]), texts)] == identify(texts)


@settings(deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4))
def test_any_text_gets_a_tag_and_a_probability(texts: list[str]) -> None:
    found = identify(texts)
    assert len(found) == len(texts)
    assert all(tag and 0 <= probability <= 1 for tag, probability in found)


@pytest.mark.parametrize("text", ["", " ", "123 456", "♥!", "_"])
def test_a_text_without_letters_is_undetermined(text: str) -> None:
    assert identify([text]) == [(UNDETERMINED, 0.0)]


def test_varieties_count_as_their_language() -> None:
    [(cantonese, _), (chinese, _)] = identify(
        ["佢哋喺公園度玩緊波，隻狗就瞓咗喺度。", "孩子们在公园里踢足球，一只狗睡在旁边。"]
    )
    assert cantonese == chinese == primary("zh-TW") == primary("wuu") == primary("ZH_Hant") == "zh"
    [(egyptian, share)] = identify(["انا مش عارف ايه اللي حصل امبارح في الشارع ده بس الناس كلها كانت واقفه"])
    assert egyptian == primary("arz") == primary("ary") == "ar" and share > 0.9, "the shares of all varieties together"
    assert primary("nb-NO") == primary("nn") == "no"
    assert knows("yue") and not knows("gsw") and not knows("xx")


def test_standards_that_a_short_text_cannot_tell_apart() -> None:
    assert same_language("hr", "sr-Latn") and same_language("id", "ms") and same_language("de", "de-CH")
    assert not same_language("hr", "sl") and not same_language("de", "nl")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("A cat on a mat.", 5),
        ("— … ♥", 0),
        ("I ♥ NY", 2),
        ("一只白猫在睡觉", 4),
        ("猫", 1),
        ("タックスと クモ。", 4),
        ("Tux 企鹅", 2),
        ("고양이 한 마리", 3),
        ("แมวนอนหลับ", 3),
        ("mother-in-law's 2.5", 2),
    ],
)
def test_words_are_counted_with_and_without_spaces(text: str, words: int) -> None:
    assert word_count(text) == words


def test_the_model_is_loaded_when_it_is_first_asked() -> None:
    code = "import sys, vlmdata.measure.language; sys.exit('py3langid' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


OFFLINE = """
import json, socket, sys


def refused(*_, **__):
    raise AssertionError("something asked the network")


for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, refused)
for name in ("create_connection", "getaddrinfo", "gethostbyname"):
    setattr(socket, name, refused)

from vlmdata.measure.language import identify

print(json.dumps(identify(json.load(sys.stdin))))
"""


def test_languages_are_told_without_a_network_or_a_folder_to_write_to(tmp_path: Path) -> None:
    """In a process of its own, so that no model is loaded yet, with a home that nothing was ever put into."""
    texts = ["A dog sleeps on the sofa in the living room.", "Ein Hund schläft auf dem Sofa im Wohnzimmer.", "狗在睡觉"]
    home = tmp_path / "home"
    home.mkdir()
    surroundings = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        env=surroundings,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [(tag, probability) for tag, probability in json.loads(done.stdout)]
    assert found == identify(texts) and [tag for tag, _ in found] == ["en", "de", "zh"]
    assert list(home.iterdir()) == []
