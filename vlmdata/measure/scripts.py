"""Which script a text is written in: sure where a short text's language is not.

A caption may hold a name in Latin letters whatever its language; one that is
mostly in Cyrillic is not in French, and one with kana is not in Chinese.
"""

from __future__ import annotations

import re

from vlmdata.measure.language import primary

# Blocks of Unicode's letters, by script (Scripts.txt); kana apart from Han, as Chinese has none.
_BLOCKS = {
    "Han": "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "Kana": "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fd-\u30ff\uff66-\uff9d",
    "Hangul": "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3",
    "Cyrillic": "\u0400-\u0481\u048a-\u052f",
    "Greek": "\u0386\u0388-\u03e1\u03f0-\u03ff\u1f00-\u1fff",
    "Arabic": "\u0620-\u064a\u066e-\u06d3\u06fa-\u06ff\u0750-\u077f",
    "Hebrew": "\u05d0-\u05ea",
    "Armenian": "\u0531-\u0556\u0561-\u0587",
    "Georgian": "\u10a0-\u10ff",
    "Ethiopic": "\u1200-\u135a",
    "Devanagari": "\u0904-\u0939\u0958-\u0961",
    "Bengali": "\u0985-\u09b9",
    "Gurmukhi": "\u0a05-\u0a39",
    "Gujarati": "\u0a85-\u0ab9",
    "Oriya": "\u0b05-\u0b39",
    "Tamil": "\u0b83-\u0bb9",
    "Telugu": "\u0c05-\u0c39",
    "Kannada": "\u0c85-\u0cb9",
    "Malayalam": "\u0d05-\u0d39",
    "Sinhala": "\u0d85-\u0dc6",
    "Thai": "\u0e01-\u0e30",
    "Lao": "\u0e81-\u0eb0",
    "Burmese": "\u1000-\u102a",
    "Khmer": "\u1780-\u17a2",
}
_SCRIPTS = {name: re.compile(f"[{block}]") for name, block in _BLOCKS.items()}
_NOT_LATIN = re.compile(f"[{''.join(_BLOCKS.values())}]")
_LETTER = re.compile(r"[^\W\d_]")

# Languages that are written in one of these, at least sometimes (CLDR); what is not here is written in Latin letters.
_WRITTEN = {
    "Han": "zh ja ko", "Kana": "ja", "Hangul": "ko", "Greek": "el", "Hebrew": "he yi", "Armenian": "hy",
    "Georgian": "ka", "Ethiopic": "am ti", "Thai": "th", "Lao": "lo", "Burmese": "my", "Khmer": "km",
    "Cyrillic": "ru uk be bg sr mk bs sh kk ky mn tg tt uz az ba cv os sah ce tk crh rue kv mhr udm ku ro",
    "Arabic": "ar fa ur ps ug ku sd ks pa az uz ms ha tk tt kk ky",
    "Devanagari": "hi mr ne sa sd kok mai bho ks doi bgc", "Bengali": "bn as mni", "Gurmukhi": "pa", "Gujarati": "gu",
    "Oriya": "or", "Tamil": "ta", "Telugu": "te", "Kannada": "kn tcy", "Malayalam": "ml", "Sinhala": "si",
}  # fmt: skip
_WRITERS = {script: frozenset(tags.split()) for script, tags in _WRITTEN.items()}
_FEWEST = 2
"""Letters: one alone may be a symbol, as in a formula."""


def scripts_of(text: str) -> set[str]:
    """The scripts other than Latin that the text is written in: those of most of its letters, if any."""
    other = _NOT_LATIN.findall(text)
    if len(other) < _FEWEST or 2 * len(other) <= len(_LETTER.findall(text)):
        return set()
    return {name for name, pattern in _SCRIPTS.items() if len(pattern.findall(text)) >= _FEWEST}


def writes(tag: str, scripts: set[str]) -> bool:
    """Whether a language (BCP 47) is ever written in all of these scripts."""
    return all(primary(tag) in _WRITERS[script] for script in scripts)
