"""What a model wraps around a caption, taken off: thoughts, Markdown, lead-ins, quotation marks, what nobody can see.

Each rule takes off what is certainly wrapping and leaves alone what may be the
picture's: the number sign of `# 7 on a jersey`, the asterisks of `M*A*S*H`. "The
image shows" stays, too: it is part of a true sentence, and without it the rest of
the sentence is none in most languages; prompts are the place to ask for less.
"""

from __future__ import annotations

import re
import unicodedata

MOST_LAYERS = 24
"""Wrappings within wrappings that are taken off; more are no model's manners but a trap."""

# Unicode's Default_Ignorable_Code_Point, controls and halves of surrogate pairs, less what a script or an emoji
# needs: variation selectors, the zero-width (non-)joiner and space. White space is dealt with elsewhere.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_REPEATED = re.compile("([\u200b-\u200d])[\u200b-\u200d]+|([\ufe00-\ufe0f])[\ufe00-\ufe0f]+")
# A joiner shapes the letter or emoji before it, a space of no width parts words of Thai, Lao, Burmese and Khmer.
_UNSPACED = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
_IDLE = re.compile(f"(?<![^\x00-\x7f])[\u200c\u200d]|(?<!{_UNSPACED})\u200b|\u200b(?!{_UNSPACED})")

_TEMPLATE_TOKEN = re.compile(r"<\|\w{1,40}\|>|<(?:end_of_turn|eos)>|</s>\s*\Z")
_THINKING, _THOUGHT = "<think>", "</think>"

_FENCE = re.compile(r"(?:```|~~~)\s*[\w+-]*")
_RULE = re.compile(r"(?:[-*_=] ?){3,}")
_HEADING = re.compile(r"(#{1,6}) (?=\S)|\*\*(?=[^*]{1,60}\*\*:?\Z)")
_QUOTED_LINE = re.compile(r"\A(?:> )+(?=[^\W\d]|[\"“„«「])")
_BULLET = re.compile(r"[-*+•‣▪◦·–] (?=\S)")
_LONE_BULLET = re.compile(r"[-•‣▪◦·–] (?=[^\W\d_])|\* (?=[^\W\d_a-zà-öø-ÿа-яα-ω])")
_NUMBER = re.compile(r"\d{1,2}[.)] (?=\S)")

# Inner text starts with a letter or digit, or with one mark and then a letter: `"*" and "*"` is no emphasis.
_LINK = re.compile(r"!?\[([^\[\]]+)\]\([^()\s]*\)")
_BOLD = re.compile(r"\*\*(?=[^\s*]?\w)([^*\n]*[^\s*])\*\*")
_ITALIC = re.compile(r"(?<![\w*])\*(?=[^\s*]?\w)([^*\n]*[^\s*])\*(?![\w*])")
_UNDERLINED = re.compile(r"(?<!\w)(__?)(?=[^\W_])(?=[^_\n]* )([^_\n]*[^\s_])\1(?!\w)")
_CODE = re.compile(r"(?<![\w`])`+([^`\n]+)`+(?!\w)")

_SAID_FIRST = (
    r"sure(?: thing)?|certainly|of course|absolutely|gladly|natürlich|gerne|selbstverständlich|klar|bien sûr"
    r"|certainement|avec plaisir|¡?claro(?: que sí)?|¡?por supuesto|certo|certamente|com certeza|конечно"
    r"|好的|当然|當然|もちろん(?:です)?|かしこまりました|承知しました|물론(?:입니다|이죠)?"
)
_HERE = (
    r"(?:here(?:['’]s| is| are)|below (?:is|are)|the following (?:is|are)|hier (?:ist|sind)|voici|ecco"
    r"|aqu[íi] (?:está|tienes?)|вот)\b|以下|下面|这是|這是|こちら|다음은"
)
_WRITING = (
    r"caption|descri[bp]|alt[ -]?text|sentence|transcri|region|objects|beschr|bildunterschrift|alternativtext|satz"
    r"|légende|phrase|texte alternatif|leyenda|descripci|frase|texto alternativo|didascalia|descrizione|legenda"
    r"|descriç|описани|подпись|描述|说明|說明|标题|標題|キャプション|説明|설명|캡션"
)
_LABELS = (
    r"(?:image |picture |photo )?(?:caption|description)|alt[ -]?text|transcription|bildunterschrift|bildbeschreibung"
    r"|beschreibung|alternativtext|légende|texte alternatif|leyenda|descripción|pie de foto|texto alternativo"
    r"|didascalia|descrizione|testo alternativo|legenda|descrição|описание|подпись|альтернативный текст"
    r"|(?:图片|图像|圖片)?(?:描述|说明|說明)|(?:图片)?标题|標題|替代文本|替代文字|キャプション|(?:画像の)?説明|代替テキスト"
    r"|설명|캡션|대체 텍스트"
)
_HERE_IS = rf"(?:{_HERE})[^:：\n]{{0,80}}?(?:{_WRITING})[^:：\n]{{0,80}}"
_LEAD_IN = re.compile(
    rf"(?:{_SAID_FIRST})\s*(?:[!！]|[,.，。、:：](?=\s*(?:{_HERE})))\s*"
    rf"|{_HERE_IS}[:：]\s*"
    rf"|(?:{_LABELS})(?: ?#?\d{{1,2}})?\s*[:：]\s*",
    re.IGNORECASE,
)
_LEAD_IN_LINE = re.compile(_HERE_IS, re.IGNORECASE)
_REMARK = re.compile(
    r"(?:please )?let me know\b|i hope (?:this|that)\b|feel free to\b|would you like\b|is there anything\b"
    r"|if you(?:['’]d| would)? (?:need|want|like|have)\b",
    re.IGNORECASE,
)
_QUOTES = ('""', "“”", "„“", "„”", "””", "«»", "»«", "‹›", "「」", "『』", "''", "‘’", "’’")
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")


def tidy(text: str, *, lines: bool, verbatim: bool, longest: int) -> str | None:
    """The text without its wrapping, in NFC, and on one line unless `lines`.

    Null if there is no end to wrappings, or if it has more than `longest` characters.

    `verbatim`: lines may be transcribed from the picture, so that headings and
    numbers are not the model's own. What comes out is tidy: it comes out unchanged
    a second time.
    """
    text = _without_thoughts(text)
    # Before anything else: what a stranger's server sends may be a mebibyte of marks.
    if len(text) > longest:
        return None
    for _ in range(MOST_LAYERS):
        before, text = text, _layer_off(text, lines, verbatim)
        if text == before:
            return text
    return None


def _layer_off(text: str, lines: bool, verbatim: bool) -> str:
    said = _TEMPLATE_TOKEN.sub("", _without_thoughts(text))
    rows = [" ".join(row.split()) for row in _visible(said).splitlines()]
    rows = [row for row in rows if row and not _FENCE.fullmatch(row) and not _RULE.fullmatch(row)]
    rows = _without_headings([_QUOTED_LINE.sub("", row) for row in rows], verbatim)
    rows = [_plain(row) for row in _without_bullets(rows, lines, verbatim)]
    rows = _without_remarks(_without_lead_in(rows), verbatim)
    return _unquoted(("\n" if lines else " ").join(rows))


def _without_thoughts(text: str) -> str:
    """What follows a reasoning model's thoughts; nothing, if it ran out of tokens among them."""
    _, thought, said = text.rpartition(_THOUGHT)
    return "" if not thought and said.lstrip().startswith(_THINKING) else said


def _visible(text: str) -> str:
    text = _REPEATED.sub(r"\1\2", _INVISIBLE.sub("", text))
    return unicodedata.normalize("NFC", _IDLE.sub("", text))


def _without_headings(rows: list[str], verbatim: bool) -> list[str]:
    """Headings above text name what is being answered ("Description"); alone, they are the answer."""
    headings = [_is_heading(row) for row in rows]
    if not verbatim and any(headings) and not all(headings):
        return [row for row, heading in zip(rows, headings, strict=True) if not heading]
    return [row.lstrip("#").strip() if heading else row for row, heading in zip(rows, headings, strict=True)]


def _is_heading(row: str) -> bool:
    """`# 7 on a jersey` and `# key` are none: one mark, and no capital after it."""
    match = _HEADING.match(row)
    if not match:
        return False
    first = row[match.end()]
    return match[1] != "#" or first == "*" or (first.isalpha() and not first.islower())


def _without_bullets(rows: list[str], lines: bool, verbatim: bool) -> list[str]:
    """Rows without the marks of a list; items that become one line are set off by semicolons."""
    numbered = not verbatim and (lines or sum(bool(_NUMBER.match(row)) for row in rows) > 1)
    marks = [_BULLET, _NUMBER] if numbered else [_BULLET]
    items = [any(mark.match(row) for mark in marks) for row in rows]
    if sum(items) < 2 and not (lines and numbered):
        return [_LONE_BULLET.sub("", row, count=1) if _LONE_BULLET.match(row) else row for row in rows]
    bare = [_unmarked(row, marks) if item else row for row, item in zip(rows, items, strict=True)]
    return bare if lines else _set_off(bare, items)


def _unmarked(row: str, marks: list[re.Pattern[str]]) -> str:
    mark = next(mark for mark in marks if mark.match(row))
    return mark.sub("", row, count=1)


def _set_off(rows: list[str], items: list[bool]) -> list[str]:
    followed = [*items[1:], False]
    pairs = zip(rows, items, followed, strict=True)
    return [f"{row};" if item and more and row[-1].isalnum() else row for row, item, more in pairs]


def _plain(row: str) -> str:
    for markup in (_LINK, _BOLD, _ITALIC, _CODE):
        row = markup.sub(r"\1", row)
    return _UNDERLINED.sub(r"\2", row)


def _without_lead_in(rows: list[str]) -> list[str]:
    if not rows:
        return rows
    first, *rest = rows
    if rest and _LEAD_IN_LINE.fullmatch(first):
        return rest
    match = _LEAD_IN.match(first)
    if not match:
        return rows
    return [first[match.end() :], *rest] if match.end() < len(first) else rest


def _without_remarks(rows: list[str], verbatim: bool) -> list[str]:
    """Rows without an offer of more help as the last of them."""
    return rows[:-1] if not verbatim and len(rows) > 1 and _REMARK.match(rows[-1]) else rows


def _unquoted(text: str) -> str:
    """The text without quotation marks around all of it; a full stop behind them stays."""
    ending = text[-1:] if text[-1:] in {".", "。"} else ""
    inside = text.removesuffix(ending)
    for marks in _QUOTES:
        if len(inside) > 1 and inside[0] == marks[0] and inside[-1] == marks[1] and not _has(inside[1:-1], marks):
            said = inside[1:-1].strip()
            return said if said.endswith((".", "!", "?", "。", "！", "？")) else said + ending
    return text


def _has(inside: str, marks: str) -> bool:
    """Whether the marks come again, so that the outer ones may not be a pair."""
    return any(mark in _APOSTROPHE.sub("", inside) for mark in marks)
