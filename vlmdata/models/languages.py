"""Which languages a text tower was trained to match with pictures.

Tags are BCP-47 primary subtags. A tower that is not listed is taken as English
only: a score in a language that a model does not know looks like a score.
"""

from __future__ import annotations

ENGLISH = frozenset({"en"})

# The 100 languages of CC-100 (Conneau et al. 2020, appendix A).
_XLM_ROBERTA = (
    "af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr hu"
    " hy id is it ja jv ka kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my ne nl no om or pa pl ps pt ro"
    " ru sa sd si sk sl so sq sr su sv sw ta te th tl tr ug uk ur uz vi xh yi zh"
)
XLM_ROBERTA = frozenset(_XLM_ROBERTA.split())

# The languages of FLORES-200 that have a two-letter tag (NLLB Team 2022, table 1).
_NLLB = (
    "af am ar as ay az ba be bg bm bn bo bs ca cs cy da de dz ee el en eo es et eu fa fi fj fo fr ga gd gl"
    " gn gu ha he hi hr ht hu hy id ig is it ja jv ka kg ki kk km kn ko kr ks ku ky lb lg li ln lo lt lv mg"
    " mi mk ml mn mr ms mt my nb ne nl nn no ny oc om or pa pl ps pt rn ro ru rw sa sc sd sg si sk sl sm sn"
    " so sq sr ss st su sv sw ta te tg th ti tk tl tn tr ts tt tw ug uk ur uz vi wo xh yi yo zh zu"
)
NLLB = frozenset(_NLLB.split())

# WebLI has more, but these are the ones with measured retrieval (Crossmodal-3600).
_CROSSMODAL_3600 = (
    "ar bn cs da de el en es fa fi fr he hi hr hu id it ja ko mi nl no pl pt quz ro ru sv sw te th tl tr uk vi zh"
)
CROSSMODAL_3600 = frozenset(_CROSSMODAL_3600.split())

_BY_MARK: tuple[tuple[str, frozenset[str]], ...] = (
    ("xlm-roberta", XLM_ROBERTA),
    ("nllb", NLLB),
    ("siglip-i18n", CROSSMODAL_3600),
    ("siglip2", CROSSMODAL_3600),
    ("gemma", CROSSMODAL_3600),
)


def languages_of(*names: str | None) -> frozenset[str]:
    """Languages that the model or text tower of any of these names knows; English if none is listed.

    Give every name at hand: the model's, its text tower's, its tokenizer's.
    """
    text = " ".join(name.lower() for name in names if name)
    for mark, languages in _BY_MARK:
        if mark in text:
            return languages
    return ENGLISH
