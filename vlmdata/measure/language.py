"""Which language a text is in, found offline, and how many words it has.

py3langid's naive Bayes over byte n-grams (Lui and Baldwin 2012, retrained). Its
probability is honest but modest on a short caption: what it gives 0.9 is right,
and of captions of 20 characters it gives that to less than half.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

UNDETERMINED = "und"
"""BCP 47's tag of a text whose language cannot be told."""
NO_LANGUAGE = "zxx"
"""BCP 47's tag of a text without linguistic content, such as a serial number."""

# A variety that the model has a label for, or a person a tag, and the tag it counts as.
_COUNTS_AS = {
    "wuu": "zh", "yue": "zh", "cmn": "zh", "arz": "ar", "ary": "ar", "nb": "no", "nn": "no", "uzs": "uz",
    "sdh": "ku", "ckb": "ku", "kmr": "ku", "gug": "gn", "quz": "qu", "kik": "ki", "fuv": "ff", "hbo": "he",
    "grc": "el", "ltg": "lv", "fil": "tl", "prs": "fa", "pes": "fa", "iw": "he", "in": "id", "ji": "yi", "mo": "ro",
}  # fmt: skip

# Standards of one language, which a caption's length does not tell apart (ISO 639-3 macrolanguages hbs and msa).
_ONE_LANGUAGE = (frozenset({"bs", "hr", "sr", "sh"}), frozenset({"id", "ms"}))

_LETTER = re.compile(r"[^\W\d_]")

# Scripts that put no space between words, with the letters that a word has on average.
_HAN_AND_KANA = re.compile("[\u3005-\u3007\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]")
_SOUTH_EAST_ASIAN = re.compile("[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f]")
_PER_WORD = ((_HAN_AND_KANA, 2), (_SOUTH_EAST_ASIAN, 4))

_loading = threading.Lock()


def identify(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Each text's language, a BCP 47 primary tag, and its probability, 0 to 1.

    Varieties count as their language: Wu and Cantonese as `zh`, Egyptian Arabic
    as `ar`, both standards of Norwegian as `no`. A text without a letter is `und`.
    """
    identifier = _identifier()
    return [_identified(identifier, text) for text in texts]


def primary(tag: str) -> str:
    """The primary tag that `identify` would give a text of this tag: `zh-TW` and `yue` are `zh`, `nb-NO` is `no`."""
    first = tag.strip().replace("_", "-").partition("-")[0].lower()
    return _COUNTS_AS.get(first, first)


def knows(tag: str) -> bool:
    """Whether `identify` can name this language at all."""
    return primary(tag) in _labels()


def same_language(one: str, other: str) -> bool:
    """Whether two tags are of one language, as far as a short text can tell (`hr` and `bs` are)."""
    first, second = primary(one), primary(other)
    return first == second or any({first, second} <= group for group in _ONE_LANGUAGE)


def word_count(text: str) -> int:
    """Words: runs between spaces that hold a letter or digit.

    Han and kana count as a word for every two characters, Thai, Lao, Khmer and
    Burmese for every four, rounded up: none of them puts spaces between words.
    """
    words = 0
    for script, per_word in _PER_WORD:
        text, letters = script.subn(" ", text)
        words += math.ceil(letters / per_word)
    return words + sum(any(map(str.isalnum, run)) for run in text.split())


def _identified(identifier: Any, text: str) -> tuple[str, float]:
    if not _LETTER.search(text):
        return UNDETERMINED, 0.0
    total: dict[str, float] = {}
    for label, probability in identifier.rank(text):
        tag = _COUNTS_AS.get(label, label)
        total[tag] = total.get(tag, 0.0) + probability
    best = max(total, key=total.__getitem__)
    # A sum of float32 shares may pass 1 by its last bits.
    return best, min(total[best], 1.0)


def _identifier() -> Any:
    # Without the lock, threads that come at once would each spend a second on loading it.
    with _loading:
        return _load()


@cache
def _load() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _labels() -> frozenset[str]:
    return frozenset(primary(label) for label in _identifier().labels)
