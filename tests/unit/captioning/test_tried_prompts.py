"""Each shipped prompt was tried: what a vision-language model answered to it, kept as it came.

`tests/data/prompt_answers.json` tells picture (of this repository), its longest
side as it was sent, prompt, language and answer. The model, of 2026, had nothing
but the picture and the words of the prompt. A prompt that is edited is another
one, and is to be tried anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlmdata.captioning.hygiene import clean
from vlmdata.captioning.prompts import load_prompt, shipped_prompts

ROOT = Path(__file__).parents[3]
ANSWERS: list[dict[str, Any]] = json.loads((ROOT / "tests/data/prompt_answers.json").read_text(encoding="utf-8"))


def _label(row: dict[str, Any]) -> str:
    return f"{row['prompt'].partition('@')[0]}-{row['language']}-{Path(row['picture']).stem}"


@pytest.mark.parametrize("name", shipped_prompts())
def test_each_prompt_was_tried_as_it_is(name: str) -> None:
    tried = [row for row in ANSWERS if row["prompt"] == load_prompt(name).identity]
    assert {row["language"] for row in tried} == {"en", "de"}
    assert len({row["picture"] for row in tried}) >= 3


@pytest.mark.parametrize("row", ANSWERS, ids=_label)
def test_an_answer_is_a_caption_as_it_came(row: dict[str, Any]) -> None:
    assert (ROOT / row["picture"]).is_file()
    prompt = load_prompt(row["prompt"].partition("@")[0])
    assert clean(row["answer"], prompt, row["language"]) == row["answer"]
