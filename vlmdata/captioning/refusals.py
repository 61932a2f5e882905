"""Answers that are no captions: a model that will not say, or says that it was shown nothing.

Only what stands at the start of a sentence and outside quotation marks counts,
and only of the model's own doing ("I cannot identify …"): a sign that says sorry,
or a man who refuses to answer, is a caption.
"""

from __future__ import annotations

import re

_PICTURE = r"(?:image|picture|photo(?:graph)?|attachment)"
_CANNOT = (
    r"(?:can(?:'t|not| not)|(?:won't|will not)(?: be able to)?|could(?:n't| not)|(?:am|'m) (?:unable|not able) to"
    r"|(?:am|'m) not (?:comfortable|allowed)|(?:do not|don't) feel comfortable|must decline|have to decline)"
)
_HELP = (
    r"(?:assist|identif|recogni[sz]|describ|provid|process|analy[sz]|comply|fulfil|respond|comment on|generat|caption"
    r"|determin|discuss|engag|do th(?:at|is)|answer (?:that|this|your)|(?:see|view|access) images"
    r"|help (?:you|with|identif|describ)|help(?:[.,!]|\Z))"
)
_SORRY = (
    r"(?:(?:i'm|i am|we're|we are) (?:\w+ )?sorry|sorry|(?:my |our )?apologies|i apologi[sz]e"
    r"|unfortunately|regrettably)"
)

_ENGLISH = (
    rf"{_SORRY}\b[^.\n]{{0,120}}\bi ?{_CANNOT}[^.\n]{{0,40}}?"
    rf"(?:{_HELP}|\b(?:help|continue|transcribe|read|tell|name|see)\b)",
    rf"i ?{_CANNOT} (?:\w+ly )?(?:to )?{_HELP}",
    r"i(?:'m| am) (?:an|just an|only an) (?:ai|artificial)\b",
    r"as an? (?:ai(?: language)? (?:model|assistant|system)|ai,|artificial intelligence)",
    r"as a (?:large |visual |vision[- ])?language model",
    rf"(?:this|the|your) (?:{_PICTURE}|request|content) (?:was|has been) (?:flagged|rejected|blocked)",
    r"it (?:is|'s|would be|wouldn't be|is not|isn't) (?:in)?appropriate (?:for me )?to\b",
    r"(?:my|our) (?:guidelines|policies|safety \w+) (?:prevent|prohibit|do not allow|don't allow)",
    r"i(?:'d| would)? (?:must|have to|prefer to|need to)? ?(?:respectfully )?decline\b",
)
_GERMAN = (
    r"(?:es )?tut mir (?:\w+ )?leid\b[^.\n]{0,80}\b(?:ich|kann|nicht)\b",
    r"(?:entschuldigung|leider|ich bedaure)\b[^.\n]{0,40}\b(?:kann|darf) ich\b[^.\n]{0,80}\b(?:nicht|kein)",
    r"(?:entschuldigung|ich bedaure)\b[^.\n]{0,40}\bich (?:kann|darf)\b[^.\n]{0,80}\b(?:nicht|kein)",
    r"ich (?:kann|darf|möchte)\b[^.\n]{0,80}\b(?:nicht|keine\w*)\b[^.\n]{0,60}"
    r"(?:helfen|identifizier|erkennen|beschreib|beantwort|nachkommen|bereitstell|unterstützen)",
    r"als (?:ki\b(?!-gen)|künstliche intelligenz|(?:großes )?sprachmodell)",
)
_FRENCH = (
    r"(?:je suis |toutes mes )?(?:vraiment )?(?:désolée?|navrée?|excuses?)\b[^.\n]{0,40}\bje ne\b",
    r"(?:malheureusement,? )?je ne (?:peux|puis|suis pas en mesure|suis pas autorisée?)\b[^.\n]{0,30}"
    r"(?:aider|identifi|décrire|répondre|fournir|trait|reconna|analys|satisfaire)",
    r"en tant qu(?:'(?:ia|intelligence artificielle|assistant)|e modèle)",
)
_SPANISH = (
    r"(?:lo siento|lo lamento|lamentablemente|disculpa|perdón)\b[^.\n]{0,40}\bno (?:puedo|me es posible|estoy aut)",
    r"no (?:puedo|me es posible|soy capaz de) (?:\w+ )?"
    r"(?:ayudar|identific|describir|proporcion|asistir|cumplir|reconocer|procesar)",
    r"como (?:un |una )?(?:ia\b|inteligencia artificial|modelo de (?:lenguaje|ia)|asistente de ia)",
)
_OTHERS = (
    r"(?:desculpe|sinto muito|lamento|infelizmente)\b[^.\n]{0,40}\bnão (?:posso|consigo)",
    r"como (?:um )?modelo de linguagem",
    r"(?:mi dispiace|purtroppo|spiacente)\b[^.\n]{0,40}\bnon (?:posso|sono in grado)",
    r"(?:извините|простите|к сожалению)[^.\n]{0,40}\bя не (?:могу|в состоянии)",
    r"как (?:языковая модель|искусственный интеллект|ии\b)",
)
_EAST_ASIAN = (
    r"(?:很|非常|十分)?(?:抱歉|对不起|對不起|不好意思)[,，!！。\s]*[^。\n]{0,20}(?:无法|無法|不能|没办法|沒辦法)",
    r"我(?:无法|無法|不能)[^。\n]{0,8}(?:帮|幫|协助|協助|识别|識別|辨识|辨識|描述|提供|回答|处理|處理|满足|滿足)",
    r"作为(?:一个|一個|一名|一款)?(?:ai|人工智能|人工智慧|大?语言模型)|作為(?:一個|一名)?(?:ai|人工智慧|大?型?語言模型)",
    r"申し訳(?:ありません|ございません|ないです|ないのですが)",
    r"(?:すみません|すいません|ごめんなさい|残念ながら)[^。\n]{0,60}(?:できません|できかねます|いたしかねます|お答えできない)",
    r"[^。\n]{0,40}(?:お手伝い|お答え|特定|識別|説明|対応)(?:を|は|する|すること|は|が|に)*(?:できません|できかねます|いたしかねます)",
    r"(?:私は)?aiとして|aiアシスタントとして|(?:大規模)?言語モデルとして",
    r"(?:죄송합니다|죄송하지만|미안하지만|유감스럽게도)[^.\n]{0,80}(?:없습니다|어렵습니다|못합니다|수 없어)",
    r"(?:저는 )?(?:ai|인공지능)(?: 언어 모델)?(?:로서|이기 때문에)",
)
_NOTHING_SEEN = (
    rf"(?:{_SORRY}\b[^.\n]{{0,20}})?i (?:do not|don't|cannot|can't|can not|did not|didn't)"
    rf" (?:actually |currently )?(?:see|view|find|receive|detect|have) (?:an?y? |the |your |this |that )*{_PICTURE}\b"
    rf"(?! (?:of|in|with|on)\b)",
    rf"(?:there (?:is|was) no|no|i see no) {_PICTURE} (?:\w+ ){{0,2}}"
    r"(?:provided|attached|uploaded|included|to describe)",
    r"(?:could you )?please (?:upload|provide|share|attach|send)\b"
    rf"[^.\n]{{0,20}}\b{_PICTURE}",
    rf"it (?:seems|looks like|appears)\b[^.\n]{{0,30}}\b{_PICTURE}[^.\n]{{0,30}}(?:n't|not|fail)[^.\n]{{0,20}}"
    r"(?:attach|upload|load|come through|provided|included)",
)

# A full stop within a sentence is rare enough; the marks of the east need no space behind them.
_SENTENCE = r"(?:\A|\n|[.!?:;…] |[。！？])\s*[¡¿]?"


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile(f"{_SENTENCE}(?:{'|'.join(patterns)})", re.IGNORECASE)


_REFUSES = _any_of(*_ENGLISH, *_GERMAN, *_FRENCH, *_SPANISH, *_OTHERS, *_EAST_ASIAN)
_SEES_NOTHING = _any_of(*_NOTHING_SEEN)


def refuses(own_words: str) -> bool:
    """Whether a sentence of the model's own words refuses to caption the picture."""
    return _REFUSES.search(_straight(own_words)) is not None


def sees_nothing(own_words: str) -> bool:
    """Whether the model says that no picture reached it."""
    return _SEES_NOTHING.search(_straight(own_words)) is not None


def _straight(text: str) -> str:
    return text.replace("’", "'").replace("\u2018", "'")
