"""A label is never trusted blindly, and a short text proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vlmdata.config import LanguageModel, QualityConfig
from vlmdata.layout import Stage, Step
from vlmdata.quality import languages
from vlmdata.quality.bands import judge_shard
from vlmdata.quality.languages import tell
from vlmdata.quality.scores import score_shard

ENGLISH = "A red bicycle leans against the wall of an old brick house in the village."
GERMAN = "Ein rotes Fahrrad lehnt an der Wand eines alten Backsteinhauses im Dorf."
CHINESE = "一辆红色的自行车靠在村里一座老砖房的墙上，旁边有一棵大树和一条小狗。"


def test_a_text_that_contradicts_its_label_is_marked() -> None:
    told = tell(["en", "de", "de", "zh-TW"], [ENGLISH, GERMAN, ENGLISH, CHINESE], "en")
    assert [one.contradicted for one in told] == [False, False, True, False]
    assert [one.language for one in told] == ["en", "de", "de", "zh"]
    assert [one.identified for one in told] == ["en", "de", "en", "zh"]


def test_what_is_not_labelled_has_the_language_that_it_is_surely_in() -> None:
    told = tell([None, None, None], [GERMAN, "Fahrrad", "1234 5678 9012 3456 7890"], "en")
    assert [one.language for one in told] == ["de", "en", "en"]
    assert [one.identified for one in told] == ["de", None, None]


@pytest.mark.parametrize(
    ("text", "probability", "contradicted"),
    [
        ("a text of 20 letters", 0.9, True),
        ("a text of 20 letters", np.nextafter(0.9, 0), False),
        ("a text of 19 letter", 1.0, False),
        ("", 1.0, False),
    ],
)
def test_from_20_characters_and_a_probability_of_9_tenths_a_text_is_believed(
    text: str, probability: float, contradicted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(languages, "identify", lambda texts: [("nl", probability)] * len(texts))
    [declared, undeclared] = tell(["en", None], [text, text], "de")
    assert declared.contradicted is contradicted and declared.identified == ("nl" if contradicted else None)
    assert declared.language == "en" and undeclared.language == ("nl" if contradicted else "de")


def test_egyptian_arabic_contradicts_no_arabic() -> None:
    text = "الراجل ده راح السوق النهارده عشان يجيب العيش والجبنه لولاده الصغيرين"
    assert [one.contradicted for one in tell(["ar", "arz", "en"], [text] * 3, "en")] == [False, False, True]


def test_a_short_text_and_a_language_that_cannot_be_named_contradict_nothing() -> None:
    told = tell(["fr", "tlh"], ["A red bicycle", ENGLISH], "en")
    assert [one.contradicted for one in told] == [False, False]


def test_letters_tell_what_a_short_text_is_not_in() -> None:
    texts = ["一只红苹果。", "どくキノコ", "Пальма.", "白孔雀", "Ein A と B", "π", "ヌー の あかちゃん"]
    told = tell(["fr", "ja", "es", "ja", "de", "en", "zh"], texts, "en")
    assert [one.contradicted for one in told] == [True, False, True, False, False, False, True]
    assert [one.identified for one in told] == [None] * 7
    assert not tell(["ja"], ["An F-22 Raptor."], "en")[0].contradicted, "a name in Latin letters may stand anywhere"


def test_a_contradicted_caption_is_held_and_its_sample_lives_by_another(
    pictures: Any, tiny_in: Callable[..., Any], tmp_path: Any
) -> None:
    files = {f"{seed}.png": pictures.png(seed) for seed in range(2)}
    captions: dict[str, list[Any]] = {
        "0.png": [{"text": GERMAN, "lang": "en"}, {"text": "a red square", "lang": "en"}],
        "1.png": [{"text": GERMAN, "lang": "en"}],
    }
    config = QualityConfig(
        model="starter",
        pretrained=None,
        accept_above=-1.0,
        reject_below=-1.0,
        device="cpu",
        languages={"de": LanguageModel(model="starter-multilingual", accept_above=-1.0, reject_below=-1.0)},
    )
    captioned = tiny_in(tmp_path, files, captions, shard_size=2).ingested().filtered().captioned()
    judged = captioned.each(score_shard, config).each(judge_shard, config)
    report = judged.report(Stage.CHECKED)
    assert (report.samples.kept, report.samples.held) == (1, 1)
    assert report.reasons == {"language_contradicted": 1} and report.caption_reasons == {"language_contradicted": 2}
    assert [row["text"] for row in judged.rows(Step.CHECKED, "captions")] == ["a red square"]
