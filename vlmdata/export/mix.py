"""Which of a picture's captions are exported: those of a length, and originals or a model's by a draw.

Web captions say what a picture is of, synthetic ones describe it; a mix of
both trains better than either (Nguyen et al., 2023, "Improving multimodal
datasets with image captioning").
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.config import CaptionMix
from vlmdata.schema import CAPTION_REJECTS, CAPTIONS, MADE, filled

_ONE_A_WORD = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
_BETWEEN = r"\s\p{Z}"
_IN_A_RUN = rf"[^{_ONE_A_WORD}{_BETWEEN}]*"
_WORD = rf"[{_ONE_A_WORD}]|{_IN_A_RUN}[^{_ONE_A_WORD}{_BETWEEN}\p{{P}}\p{{S}}]{_IN_A_RUN}"

Mask = npt.NDArray[np.bool_]


def is_set(mix: CaptionMix) -> bool:
    """Whether the mix leaves anything out."""
    return mix != CaptionMix()


def mixed(captions: pa.Table, mix: CaptionMix) -> tuple[pa.Table, pa.Table]:
    """Split captions (at least `schema.CAPTIONS`) into what is exported and `schema.CAPTION_REJECTS`.

    Codes: length (its words are out of bounds, and another caption of the
    picture is within them), then mix (the picture has captions of both kinds
    left, and the draw fell on the other kind; value: the draw, bound: the
    share). Every picture keeps at least one caption.
    """
    owner = pc.dictionary_encode(captions["id"].combine_chunks())
    samples, row = owner.dictionary, owner.indices.to_numpy()
    words = word_counts(captions["text"]).to_numpy()
    left_out, bound = _out_of_bounds(words, mix)
    left_out &= _any_of(~left_out, row)[row]

    draw = draws(samples)[row]
    synthetic = is_synthetic(captions["origin"]).to_numpy()
    share = mix.synthetic_share
    lost = np.zeros_like(left_out) if share is None else _other_kind(synthetic, ~left_out, row, draw < share)
    rejects = [
        _rejects(captions, left_out, "length", words.astype(np.float64), bound),
        _rejects(captions, lost, "mix", draw, np.full(len(draw), 0.0 if share is None else share)),
    ]
    return captions.filter(pa.array(~(left_out | lost))), pa.concat_tables(rejects)


def word_counts(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Words of each text (n, int32): runs between spaces, if not of punctuation and symbols alone.

    Chinese and Japanese are written without spaces: each of their characters counts as a word.
    """
    return pc.count_substring_regex(texts, _WORD)


def is_synthetic(origins: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether a model wrote each caption (n, bool), by its origin."""
    return pc.starts_with(origins, MADE)


def draws(samples: pa.Array, what: str = "caption mix") -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each sample id (n); of the id alone, so the same in every shard and run."""
    # Salted with what is drawn, or the draw would go with every other choice that is made by an id.
    digests = b"".join(sha256(f"{what}\n{sample}".encode()).digest()[:8] for sample in samples.to_pylist())
    # 53 bits, which a double holds exactly: a draw is never rounded up to 1.
    return (np.frombuffer(digests, ">u8") >> np.uint64(11)).astype(np.float64) / 2.0**53


def _out_of_bounds(words: npt.NDArray[np.int32], mix: CaptionMix) -> tuple[Mask, npt.NDArray[np.float64]]:
    """Which captions are shorter or longer than asked for, and the bound that they break."""
    longest = np.inf if mix.max_words is None else float(mix.max_words)
    short = words < mix.min_words
    return short | (words > longest), np.where(short, float(mix.min_words), longest)


def _other_kind(synthetic: Mask, remaining: Mask, row: npt.NDArray[np.int32], drawn_synthetic: Mask) -> Mask:
    """The remaining captions of the kind not drawn, of samples that have both kinds."""
    both = _any_of(remaining & synthetic, row) & _any_of(remaining & ~synthetic, row)
    other: Mask = both[row] & (synthetic != drawn_synthetic)
    return remaining & other


def _any_of(mask: Mask, row: npt.NDArray[np.int32]) -> Mask:
    """For each sample, whether one of its captions is under the mask."""
    found = np.zeros(int(row.max(initial=-1)) + 1, np.bool_)
    found[row[mask]] = True
    return found


def _rejects(
    captions: pa.Table, mask: Mask, code: str, value: npt.NDArray[np.float64], bound: npt.NDArray[np.float64]
) -> pa.Table:
    rows = captions.filter(pa.array(mask))
    own = {name: rows[name] for name in CAPTIONS.names}
    measured = {"value": pa.array(value[mask]), "bound": pa.array(bound[mask])}
    return filled(CAPTION_REJECTS, rows.num_rows, **own, **measured, outcome="rejected", code=code)
