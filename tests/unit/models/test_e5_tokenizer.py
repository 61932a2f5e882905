"""Texts become begin, "query: ", their pieces, end and padding, whatever strangers write into them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.models.e5_writer import Tower
from vlmdata.models.starter_multilingual.e5_file import Vocabulary, read_e5
from vlmdata.models.starter_multilingual.tokenizer import E5Tokenizer

CONTEXT = 12
BEGIN, PAD, END, UNKNOWN = 0, 1, 2, 3


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return read_e5(Tower().write(tmp_path_factory.mktemp("e5") / "e5.bin")).vocabulary


@pytest.fixture(scope="module")
def tokenizer(words: Vocabulary) -> E5Tokenizer:
    return E5Tokenizer(words, CONTEXT)


def pieces(words: Vocabulary, row: list[int]) -> list[str]:
    return [words.pieces[number][0] for number in row if number > UNKNOWN]


def test_a_text_stands_between_begin_and_end_behind_the_prefix(words: Vocabulary, tokenizer: E5Tokenizer) -> None:
    row = tokenizer("a  dog\ts")[0].tolist()
    assert len(row) == CONTEXT and row[0] == BEGIN
    assert pieces(words, row) == ["▁query", ":", "▁a", "▁dog", "▁", "s"]
    end = row.index(END)
    assert set(row[end + 1 :]) == {PAD} and PAD not in row[:end]


def test_what_is_too_long_is_cut_and_still_ends(tokenizer: E5Tokenizer) -> None:
    row = tokenizer(["a dog " * 20])[0].tolist()
    assert row[-1] == END and PAD not in row
    assert tokenizer(["a dog " * 20], 20).shape == (1, 20)


def test_letters_with_loose_accents_are_joined(tokenizer: E5Tokenizer) -> None:
    loose = unicodedata.normalize("NFD", "é")
    assert loose != "é"
    assert tokenizer(loose).tolist() == tokenizer("é").tolist()


@pytest.mark.parametrize("spelled", ["<pad>", "</s>", "<s>", "<unk>", "special token 1"])
def test_no_text_can_spell_a_special_token(tokenizer: E5Tokenizer, spelled: str) -> None:
    row = tokenizer(spelled)[0].tolist()
    end = row.index(END)
    assert BEGIN not in row[1:] and PAD not in row[:end] and END not in row[end + 1 :]


@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_text_has_one_begin_one_end_and_padding_behind_it(tokenizer: E5Tokenizer, texts: list[str]) -> None:
    tokens = tokenizer(texts)
    assert tokens.shape == (len(texts), CONTEXT)
    for row in tokens.tolist():
        end = row.index(END)
        assert row.count(BEGIN) == 1 and row.count(END) == 1 and row[0] == BEGIN
        assert PAD not in row[:end] and set(row[end + 1 :]) <= {PAD}


@given(st.lists(st.text(max_size=30), min_size=2, max_size=5))
def test_a_text_is_read_the_same_whatever_stands_beside_it(tokenizer: E5Tokenizer, texts: list[str]) -> None:
    assert tokenizer(texts).tolist() == [tokenizer(text)[0].tolist() for text in texts]
