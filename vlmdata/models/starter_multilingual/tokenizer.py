"""Texts to tokens as multilingual-e5 reads them, from its vocabulary alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlmdata.models.starter_multilingual.e5_file import Vocabulary

PREFIX = "query: "
"""What e5 was trained to find before a text that is compared with others of its kind (Wang et al. 2024)."""
SPACES = re.compile(" {2,}")


class E5Tokenizer:
    """Called with texts, gives tokens (n, context) int64 as open_clip's tokenizers do: begin, text, end, padding.

    Attributes:
        context_length: longest text in tokens, begin, prefix and end included; the rest is cut off.
    """

    def __init__(self, vocabulary: Vocabulary, context_length: int) -> None:
        from open_clip.tokenizer import get_clean_fn

        self.context_length = context_length
        self._clean = get_clean_fn("whitespace")
        self._words = vocabulary
        self._unigram = _unigram(vocabulary)

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Any:
        """Tokens of one text or several."""
        import torch

        context = context_length or self.context_length
        rows = [self._prepared(text) for text in ([texts] if isinstance(texts, str) else texts)]
        tokens = np.full((len(rows), context), self._words.pad, np.int64)
        for row, encoded in zip(tokens, self._unigram.encode_batch(rows), strict=True):
            told = [self._words.begin, *encoded.ids[: context - 2], self._words.end]
            row[: len(told)] = told
        return torch.from_numpy(tokens)

    def _prepared(self, text: str) -> str:
        # The table maps single characters; letters that come with loose accents are joined first.
        joined = unicodedata.normalize("NFKC", self._clean(text))
        return SPACES.sub(" ", PREFIX + joined.translate(self._words.replaced))


def _unigram(vocabulary: Vocabulary) -> Any:
    """SentencePiece's unigram model over the pieces."""
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram
    from tokenizers.pre_tokenizers import Metaspace

    special = (vocabulary.begin, vocabulary.end, vocabulary.pad, vocabulary.unknown)
    pieces = list(vocabulary.pieces)
    for number in special:
        # With a space inside no text can spell it: a caption that says "<pad>" must not become padding.
        pieces[number] = (f"special token {number}", pieces[number][1])
    tokenizer = Tokenizer(Unigram(pieces, vocabulary.unknown, False))
    tokenizer.pre_tokenizer = Metaspace(prepend_scheme="always")
    return tokenizer
