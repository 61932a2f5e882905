"""The text tower computes what a BERT with the same weights computes, then takes the mean away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.models.e5_writer import HIDDEN, Tower
from vlmdata.errors import ConfigError
from vlmdata.models.starter_multilingual.e5_file import E5File, read_e5
from vlmdata.models.starter_multilingual.text_tower import CentredProjection, QuantisedEmbedding, text_tower

DIM = 8
TOKENS = torch.tensor([[0, 4, 5, 7, 2, 1, 1], [0, 4, 5, 8, 9, 6, 2]])


@pytest.fixture
def file(tmp_path: Path) -> E5File:
    return read_e5(Tower().write(tmp_path / "e5.bin"))


def test_words_are_unpacked_as_they_are_looked_up(file: E5File) -> None:
    words = file.quantised["emb.word"]
    whole = words.weights().reshape(file.shape.vocabulary, HIDDEN)
    looked_up = QuantisedEmbedding(words, file.shape.vocabulary)(TOKENS)
    assert looked_up.dtype == torch.float32
    assert np.array_equal(looked_up.numpy(), whole[TOKENS.numpy()])


def test_it_computes_what_a_bert_with_these_weights_does(file: E5File) -> None:
    from transformers import BertModel

    tower = text_tower(file, DIM).eval()
    plain = BertModel(tower.config, add_pooling_layer=False).eval()
    state = {name: tensor for name, tensor in tower.transformer.state_dict().items() if "word_embeddings" not in name}
    words = file.quantised["emb.word"].weights().reshape(file.shape.vocabulary, HIDDEN)
    plain.load_state_dict(state | {"embeddings.word_embeddings.weight": torch.from_numpy(words)})
    with torch.inference_mode():
        mask = (TOKENS != 1).long()
        hidden = plain(input_ids=TOKENS, attention_mask=mask).last_hidden_state * mask.unsqueeze(-1)
        mean = hidden.sum(1) / mask.sum(1, keepdim=True)
        torch.testing.assert_close(tower(TOKENS), tower.proj(mean), atol=1e-6, rtol=1e-5)


def test_padding_changes_nothing_but_rounding(file: E5File) -> None:
    tower = text_tower(file, DIM).eval()
    with torch.inference_mode():
        torch.testing.assert_close(tower(TOKENS[:1]), tower(TOKENS[:1, :5]), atol=1e-6, rtol=1e-5)


def test_the_mean_of_directions_is_taken_away_whatever_their_length() -> None:
    projection = CentredProjection(4, 4)
    torch.nn.init.eye_(projection.linear.weight)
    projection.mean.copy_(torch.tensor([0.6, 0.8, 0.0, 0.0]))
    with torch.inference_mode():
        assert projection(torch.tensor([[3.0, 4.0, 0.0, 0.0]])).abs().max() < 1e-6
        one, ten = projection(torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 10.0, 0.0, 0.0]]))
    torch.testing.assert_close(one, ten)


@pytest.mark.parametrize("gone", ["emb.word", "emb.ln.w", "l0.fi.w"])
def test_a_missing_tensor_is_named(tmp_path: Path, gone: str) -> None:
    file = read_e5(Tower(left_out=frozenset({gone})).write(tmp_path / "e5.bin"))
    with pytest.raises(ConfigError, match=gone) as caught:
        text_tower(file, DIM)
    assert "\n" not in str(caught.value)


def test_two_towers_of_one_file_are_equal_but_for_the_fresh_projection(file: E5File) -> None:
    first, second = (text_tower(file, DIM).transformer.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()
