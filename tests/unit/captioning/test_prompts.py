"""Prompt files: what they may say, what is made of them, and one line for each mistake in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.captioning.prompts import Prompt, check_language, load_prompt, shipped_prompts
from vlmdata.captioning.prompts.names import english_name
from vlmdata.errors import ConfigError

HEAD = "name: mine\nversion: 3\nmax_tokens: 50\nwords: [1, 9]\n"


def written(folder: Path, head: str = HEAD, body: str = "Say it in {language}.", name: str = "mine.md") -> str:
    file = folder / name
    file.write_text(f"---\n{head}---\n{body}\n", encoding="utf-8")
    return str(file)


def refused(spec: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_prompt(spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_shipped_prompts_load_and_are_named_as_their_files() -> None:
    assert shipped_prompts() == ["alt-text", "detailed", "document", "regions"]
    for name in shipped_prompts():
        prompt = load_prompt(name)
        assert re.fullmatch(rf"{name}@[1-9][0-9]*:[0-9a-f]{{8}}", prompt.identity)
        assert prompt.languages is None
        assert prompt.low_resolution


def test_alt_text_asks_for_one_plain_sentence() -> None:
    prompt = load_prompt("alt-text")
    asked = "Describe this picture in one plain English sentence, as its alt text would."
    assert prompt.render("en", False) == asked
    assert prompt.render("en", True) == f"{asked}\n{prompt.low_resolution}"
    assert "one plain German sentence" in prompt.render("de", False)


@pytest.mark.parametrize("name", ["alt-text", "detailed", "document", "regions"])
def test_every_shipped_prompt_says_the_language_and_leaves_no_slot(name: str) -> None:
    text = load_prompt(name).render("pt-BR", True)
    assert "Brazilian Portuguese" in text
    assert "{" not in text


def test_examples_are_said_to_be_examples() -> None:
    prompt = load_prompt("regions")
    assert all(example in prompt.render("ja", False) for example in prompt.examples)
    assert "yours is Japanese" in prompt.render("ja", False)


@pytest.mark.parametrize(
    ("tag", "name"),
    [("de", "German"), ("de-CH", "German"), ("zh-TW", "Traditional Chinese"), ("zh_hans_CN", "Simplified Chinese"),
     ("gsw", "gsw"), ("tlh-Latn", "tlh-Latn"), ("EN", "English")],
)  # fmt: skip
def test_languages_have_english_names_and_unknown_tags_their_own(tag: str, name: str) -> None:
    assert english_name(tag) == name


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_a_persons_own_words_are_asked_as_they_stand(text: str) -> None:
    words = f"Say: {text} {{language}} {{0}} {{x!r}}?"
    prompt = load_prompt(words)
    assert prompt.render("de", False) == words
    assert prompt.identity.startswith("words@0:")


@pytest.mark.parametrize("words", ["Another?", "描述这张图片。", "Was ist das?", "Describe.", "What is in a/b?"])
def test_words_need_no_space_if_no_name_is_like_them(words: str) -> None:
    assert load_prompt(words).name == "words"


@given(st.text(st.sampled_from("{}langue !0:.%$"), max_size=30))
def test_only_the_slot_is_filled(odd: str) -> None:
    body = f"{odd} in {{language}}"
    prompt = Prompt("p", 1, "0" * 8, body, None, 9, (1, 9))
    assert prompt.render("fr", False) == body.replace("{language}", "French")


def test_a_file_is_its_content(tmp_path: Path) -> None:
    prompt = load_prompt(written(tmp_path))
    assert (prompt.name, prompt.version, prompt.max_tokens, prompt.words) == ("mine", 3, 50, (1, 9))
    assert prompt.render("is", False) == "Say it in Icelandic."
    edited = load_prompt(written(tmp_path, body="Say it now in {language}."))
    assert edited.identity != prompt.identity
    assert edited.identity.startswith("mine@3:")
    windows = tmp_path / "windows.md"
    windows.write_bytes(Path(written(tmp_path)).read_bytes().replace(b"\n", b"\r\n"))
    assert load_prompt(str(windows)).identity == prompt.identity


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (HEAD + "speed: 3\n", "unknown key 'speed'"),
        (HEAD.replace("version: 3\n", ""), "the key 'version' is missing"),
        (HEAD.replace("version: 3", "version: soon"), "version = 'soon': expected a valid integer"),
        (HEAD.replace("[1, 9]", "[9, 1]"), "words = [9, 1]: expected [least, most]"),
        (HEAD.replace("[1, 9]", "5"), "words = 5: expected [least, most]"),
        (HEAD.replace("[1, 9]", "[0, 5]"), "words = 0: expected [least, most]"),
        (HEAD + "languages: [no]\n", "languages = False: expected null or a list of BCP 47 tags"),
        (HEAD + "languages: [German]\n", "languages = ['German']: expected null or a list of BCP 47 tags"),
        (HEAD + "languages: []\n", "languages = []: expected"),
        (HEAD + "form: boxes\n", "form = 'boxes': expected 'text' or 'regions'"),
        (HEAD.replace("mine", "../mine"), "name = '../mine'"),
        ("- a list\n", "expected keys such as name"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_a_mistake_in_the_front_matter_names_file_key_and_what_was_expected(
    tmp_path: Path, head: str, said: str
) -> None:
    spec = written(tmp_path, head)
    message = refused(spec)
    assert message.startswith(spec)
    assert said in message


def test_a_file_for_many_languages_says_where_the_language_goes(tmp_path: Path) -> None:
    assert "{language}" in refused(written(tmp_path, body="Say it."))
    assert "{language}" in refused(written(tmp_path, HEAD + "languages: [de, fr]\n", "Say it."))
    alone = load_prompt(written(tmp_path, HEAD + "languages: [de]\n", "Was ist das?"))
    assert alone.render("de", False) == "Was ist das?"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    bare, large, binary = tmp_path / "bare.md", tmp_path / "large.md", tmp_path / "binary.md"
    bare.write_text("Say it.")
    large.write_bytes(b"x" * 70_000)
    binary.write_bytes(b"---\n\xff\xfe\n---\n")
    (tmp_path / "folder.md").mkdir()
    assert "front matter" in refused(str(bare))
    assert "64 KiB" in refused(str(large))
    assert "cannot be read as text" in refused(str(binary))
    assert "expected a file" in refused(str(tmp_path / "folder.md"))
    assert "no such file" in refused(str(tmp_path / "none.md"))
    assert "no such file" in refused("a name\nwith a break.md")
    assert "cannot be read" in refused("nul\0.md")
    assert "nothing is asked" in refused(written(tmp_path, body=""))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("alttext", "did you mean alt-text?"),
        ("Detail", "did you mean detailed"),
        ("zzz", "shipped are alt-text, detailed, document, regions"),
        ("prompts/mine", "ends in .md"),
        ("mine.txt", "ends in .md"),
        ("", "expected a shipped prompt"),
        (" ?", "expected a shipped prompt"),
        ("many words " * 10_000, "64 KiB"),
    ],
)
def test_what_is_no_prompt(spec: str, said: str) -> None:
    assert said in refused(spec)


def test_a_language_that_the_prompt_does_not_list(tmp_path: Path) -> None:
    prompt = load_prompt(written(tmp_path, HEAD + "languages: [de, pt-BR]\n"))
    check_language(prompt, "de")
    check_language(prompt, "de-CH")
    check_language(prompt, "pt-br")
    for tag in ("fr", "pt", "d"):
        with pytest.raises(ConfigError, match=rf"caption.language = '{tag}'"):
            check_language(prompt, tag)
    with pytest.raises(ConfigError, match="such as de"):
        check_language(load_prompt("alt-text"), "German")
