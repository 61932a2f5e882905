"""An answer's name follows from the picture and from what is asked, and from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.captioning.questions import Asker
from vlmdata.config import CaptionConfig
from vlmdata.errors import ConfigError
from vlmdata.schema import AGAIN, MADE

ASKED: dict[str, Any] = {
    "model": "n",
    "prompt": "Was ist das?",
    "language": "de",
    "max_tokens": 77,
    "temperature": 0.25,
    "max_side": 333,
    "low_resolution_below": 11,
}
"""Another value for each field that decides an answer."""

NOT_ASKED: dict[str, Any] = {
    "policy": "all",
    "provider": "anthropic",
    "base_url": "http://127.0.0.1:1/v1",
    "api_key_env": "ANOTHER_KEY",
    "batch": True,
    "images": "presigned",
    "max_retries": 1,
    "concurrency": 3,
    "requests_per_minute": 5,
    "tokens_per_minute": 5,
    "timeout_s": 5,
    "prices": {"m": {"input": 1, "output": 1}},
    "max_cost": 1,
    "max_requests": 1,
    "recaption_held": 0,
}

PICTURES = ["ab" * 32, "cd" * 32]


def asker(take: int = 0, **changes: Any) -> Asker:
    return Asker.of(CaptionConfig.model_validate({"model": "m", **changes}), take)


def test_every_field_of_the_config_either_decides_an_answer_or_does_not() -> None:
    assert {*ASKED, *NOT_ASKED} == set(CaptionConfig.model_fields) and not ASKED.keys() & NOT_ASKED.keys()


@pytest.mark.parametrize("field", ASKED)
def test_what_decides_an_answer_gives_it_another_name(field: str) -> None:
    assert set(asker(**{field: ASKED[field]}).keys(PICTURES)).isdisjoint(asker().keys(PICTURES))


@pytest.mark.parametrize("field", NOT_ASKED)
def test_what_only_says_how_it_is_asked_leaves_its_name(field: str) -> None:
    assert asker(**{field: NOT_ASKED[field]}).keys(PICTURES) == asker().keys(PICTURES)


@given(st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), unique=True, max_size=20), st.integers(0, 3))
def test_each_picture_and_each_take_has_a_name_of_its_own(contents: list[str], take: int) -> None:
    keys = asker(take).keys(contents)
    assert len({*keys, *asker(take + 1).keys(contents)}) == 2 * len(contents)
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)
    assert asker(take).keys(contents[::-1]) == keys[::-1]


def test_a_prompt_that_was_edited_and_not_renumbered_is_another(tmp_path: Path) -> None:
    keys = []
    for what in ("What is it?", "What is that?"):
        file = tmp_path / "mine.md"
        front = "---\nname: mine\nversion: 1\nlanguages: [en]\nmax_tokens: 50\nwords: [1, 30]\n---\n"
        file.write_text(f"{front}{what}\n", encoding="utf-8")
        keys += asker(prompt=str(file)).keys(PICTURES)
    assert len(set(keys)) == 4


def test_a_prompt_that_was_renumbered_and_not_edited_is_another(tmp_path: Path) -> None:
    """Whoever gives it another number wants other answers, though it says the same."""
    file, asked = tmp_path / "mine.md", []
    for version in (1, 2):
        front = f"---\nname: mine\nversion: {version}\nlanguages: [en]\nmax_tokens: 50\nwords: [1, 30]\n---\n"
        file.write_text(f"{front}What is it?\n", encoding="utf-8")
        asked.append(asker(prompt=str(file)))
    first, second = asked
    assert [first.question(small) for small in (False, True)] == [second.question(small) for small in (False, True)]
    assert set(first.keys(PICTURES)).isdisjoint(second.keys(PICTURES))
    assert [one.prompt.identity.partition(":")[0] for one in asked] == ["mine@1", "mine@2"]


def test_the_names_of_today_are_those_of_tomorrow() -> None:
    """Other names would ask and pay for every picture of every dataset once more."""
    settled = asker(prompt="What is it?").keys(["0" * 64])
    assert settled == ["122f319eab54d648eafb131f9bc6faff"]


def test_a_small_picture_is_asked_about_with_care() -> None:
    one = asker(low_resolution_below=256)
    assert one.is_small(255) and not one.is_small(256)
    assert one.question(small=True).prompt.startswith(one.question(small=False).prompt)
    assert one.question(small=True).prompt != one.question(small=False).prompt
    assert not asker(low_resolution_below=0).is_small(1)


def test_another_caption_is_asked_for_more_warmly() -> None:
    assert asker().question(False).temperature == 0
    assert asker(1).question(False).temperature > 0
    assert asker(1, temperature=1.5).question(False).temperature == 1.5


def test_the_length_is_the_prompts_unless_one_is_set() -> None:
    assert asker().question(False).max_tokens == asker().prompt.max_tokens
    assert asker(max_tokens=9).question(False).max_tokens == 9


def test_an_origin_says_what_wrote_the_caption() -> None:
    plain, small, again = asker().origin(False), asker().origin(True), asker(2).origin(False)
    assert plain == f"{MADE}m|{asker().prompt.identity}"
    assert small == f"{plain}|low-resolution" and again == f"{plain}{AGAIN}2"


@pytest.mark.parametrize("wrong", [{"language": "not a tag"}, {"prompt": "no-such-prompt"}])
def test_what_cannot_be_asked_is_said(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        asker(**wrong)
    assert "\n" not in str(caught.value)
