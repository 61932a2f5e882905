"""Letters of every script are told apart, and no language is denied its own."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.measure.scripts import scripts_of, writes

SAID = {
    "ru": "красная машина", "uk": "червоне авто", "el": "κόκκινο αυτοκίνητο", "ar": "سيارة حمراء", "fa": "ماشین قرمز",
    "he": "מכונית אדומה", "hi": "लाल कार", "bn": "লাল গাড়ি", "ta": "சிவப்பு கார்", "te": "ఎరుపు కారు", "kn": "ಕೆಂಪು ಕಾರು",
    "ml": "ചുവന്ന കാർ", "gu": "લાલ કાર", "pa": "ਲਾਲ ਕਾਰ", "th": "รถสีแดง", "lo": "ລົດສີແດງ", "my": "ကားအနီ", "km": "ឡានក្រហម",
    "ka": "წითელი",
    "hy": "կարմիր մեքենա", "am": "ቀይ መኪና", "ko": "빨간 자동차", "ja": "赤い車", "zh": "红色汽车",
    "si": "රතු කාර්", "or": "ଲାଲ କାର", "sr": "црвени ауто",
}  # fmt: skip


@pytest.mark.parametrize("language", SAID)
def test_a_language_is_written_in_its_own_script_and_english_is_not(language: str) -> None:
    found = scripts_of(SAID[language])
    assert found and writes(language, found) and writes(f"{language}-x-any", found)
    assert not writes("en", found) and not writes("fr", found)


@given(st.text(alphabet=st.characters(whitelist_categories=["L"], max_codepoint=0x24F)))
def test_latin_letters_contradict_nothing(text: str) -> None:
    assert scripts_of(text) == set()


@given(st.text(max_size=40))
def test_any_text_has_an_answer(text: str) -> None:
    found = scripts_of(text)
    assert found <= {script for letter in text for script in scripts_of(letter * 2)}


def test_blocks_hold_letters_of_their_script() -> None:
    """Python's own character names say so, too."""
    names = {
        "Kana": ("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA"),
        "Han": ("CJK", "IDEOGRAPHIC"),
        "Burmese": ("MYANMAR",),
    }
    for letter in map(chr, range(0x250, 0x3400)):
        for script in scripts_of(letter * 2):
            name = unicodedata.name(letter, "")
            assert not name or any(word in name for word in names.get(script, (script.upper(),))), (script, name)
