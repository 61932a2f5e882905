"""What is taken off an answer, what is left alone, and which answers are no captions."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmdata.captioning.hygiene import clean
from vlmdata.captioning.prompts import Prompt, load_prompt
from vlmdata.captioning.provider import Fault

ALT, DETAILED = load_prompt("alt-text"), load_prompt("detailed")
DOCUMENT, REGIONS = load_prompt("document"), load_prompt("regions")
LOOSE = replace(ALT, words=(1, 2_000))

TRUE_CAPTIONS = r"""
A sign that reads "Sorry, we cannot help you"
A sign that reads “I'm sorry, but I can't assist with that.”
A poster says 'Closed. I'm sorry, I cannot help you.'
A card that says »Es tut mir leid, ich kann nicht kommen«
「申し訳ありませんが、立入禁止です」と書かれた看板
A man refusing to answer
Ein Mann, der nicht antworten kann
A woman says sorry to a man; I can see the sea behind them
I can't believe it's not butter
Unfortunately named shop "Sam & Ella's Chicken"
Sorry! board game box on a table
A tweet: "Please upload your photo"
A "No image available" placeholder
As an AI-generated drawing, a castle in the clouds
# 7 on a jersey
# key on a phone
1. FC Köln players on the pitch
- 5 °C on a thermometer
A €5 note > a €2 coin
I ♥ NY mug
A "M*A*S*H" poster on a wall
A file named snake_case_name.py on a screen
A screenshot of the __init__ method
The "*" and "#" keys of a phone
Keys marked '*' and '#' and '*'
5 * 3 * 2 written on a blackboard
A hotel rated 4* by critics and 5* by guests
Text "***" on a wall
C:\Users\_x on a screen
2 + 2 = 5 (graffiti)
[Redacted] stamped on a page
~30 people in a queue
"Stop" and "Go" on two signs
"Sure" deodorant on a shelf
'Cats' and 'dogs' in neon
Sure-footed goats on a cliff
The image shows a cat
Here is where the river bends
A cat: black, asleep
Description of a painting
A family 👨‍👩‍👧 emoji and a ❤️ on a shirt
می‌خواهم یک گربه سیاه
ഒരു ഹോട എയര്‍ ബള്ളൂന്‍
Հանուկայի տոնի` մենոհա և մոմից` Շամաշից
一只白猫在垫子上睡觉。
Les manchots sont en train de gagner !
""".strip().splitlines()

REFUSALS = """
I'm sorry, but I can't assist with that
I’m sorry, I can’t help with identifying people.
"I'm sorry, I can't assist with that."
I'm really sorry, but I can't help with that.
As an AI language model, I cannot see.
I cannot identify people
I'm unable to identify the person in this image.
I am not able to describe this image.
I won't be able to help with that.
I must decline to describe this.
I don't feel comfortable describing the person.
I apologize, but I do not feel comfortable identifying real people.
Apologies, but I'm not able to help with that image.
Unfortunately, I cannot provide a description.
It would be inappropriate for me to describe this.
A man in a suit. I'm sorry, but I can't identify him.
Es tut mir leid, aber dabei kann ich nicht helfen.
Ich kann keine Personen identifizieren.
Als KI-Sprachmodell kann ich das nicht.
Je suis désolé, mais je ne peux pas vous aider.
Je ne peux pas identifier cette personne.
En tant qu'IA, je ne peux pas.
Lo siento, pero no puedo ayudar con eso.
No puedo identificar a personas en imágenes.
Como modelo de lenguaje, no puedo.
抱歉，我无法协助处理这个请求。
对不起，我不能识别图片中的人物。
作为一个AI语言模型，我无法查看图片。
我無法識別圖片中的人。
申し訳ありませんが、お手伝いできません。
すみませんが、この画像の人物を特定することはできません。
Mi dispiace, ma non posso aiutarti.
Desculpe, mas não posso ajudar com isso.
Извините, но я не могу помочь с этим.
죄송하지만 도와드릴 수 없습니다.
""".strip().splitlines()

WRAPPED = [
    "Here is a caption: A cat on a mat.",
    'Sure! Here\'s a caption for the picture:\n\n"A cat on a mat."',
    "Certainly, here is the alt text: A cat on a mat.",
    "**Caption:** A cat on a mat.",
    "Alt text: A cat on a mat.",
    "```\nA cat on a mat.\n```",
    "## Description\n\nA cat on a mat.",
    "**Description**\n\nA cat on a mat.",
    "# A cat on a mat.",
    "- A cat on a mat.",
    "> A cat on a mat.",
    "**A cat** on a *mat*.",
    "A `cat` __on a__ mat.",
    "A [cat](http://127.0.0.1/cat) on a mat.",
    "A cat\n  on a\tmat.",
    "\u202eA cat\u200b on\u00ad a mat.\u2063\U000e0041\x07",
    "<think>It looks like a cat.</think>\nA cat on a mat.",
    "It looks like a cat.</think>A cat on a mat.",
    "“A cat on a mat.”",
    "«A cat on a mat».",
    "A cat on a mat.<|im_end|>",
    'Caption: "A cat on a mat."\n\nLet me know if you need more!',
    "---\nA cat on a mat.\n---",
]


def caption(text: str, prompt: Prompt = ALT, language: str = "en") -> str:
    cleaned = clean(text, prompt, language)
    assert isinstance(cleaned, str), cleaned
    return cleaned


def fault(text: str, prompt: Prompt = ALT, language: str = "en") -> Fault:
    cleaned = clean(text, prompt, language)
    assert isinstance(cleaned, Fault), cleaned
    assert cleaned.status == 200
    assert "\n" not in cleaned.message
    return cleaned


@pytest.mark.parametrize("text", TRUE_CAPTIONS)
@pytest.mark.parametrize("prompt", [LOOSE, replace(DOCUMENT, words=(1, 2_000))], ids=["alt-text", "document"])
def test_a_true_caption_is_left_alone(text: str, prompt: Prompt) -> None:
    # Asked in a language that cannot be told: what it is in is not the point here.
    assert clean(text, prompt, "und") == text


@pytest.mark.parametrize("text", WRAPPED)
def test_wrapping_is_taken_off(text: str) -> None:
    assert caption(text) == "A cat on a mat."


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Hier ist eine Bildunterschrift: Eine Katze.", "Eine Katze."),
        ("Voici une légende pour cette image : Un chat.", "Un chat."),
        ("¡Claro! Aquí tienes una descripción: Un gato.", "Un gato."),
        ("好的，以下是图片的描述：一只猫在垫子上。", "一只猫在垫子上。"),
        ("キャプション：「マットの上の猫」", "マットの上の猫"),
        ("Описание: Кошка на коврике.", "Кошка на коврике."),
    ],
)
def test_lead_ins_of_other_languages(text: str, rest: str) -> None:
    assert caption(text, language="und") == rest


def test_a_list_becomes_one_line_and_headings_go() -> None:
    assert caption("1. A cat\n2. A mat", LOOSE) == "A cat; A mat"
    assert caption("## Subject\n* A cat.\n* A mat.", LOOSE) == "A cat. A mat."


def test_text_is_composed() -> None:
    assert caption("Un cafe\u0301 noir", language="fr") == "Un caf\u00e9 noir"


@pytest.mark.parametrize("text", REFUSALS)
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_refusal_is_no_caption(text: str, language: str) -> None:
    assert fault(text, language=language).failure == "refused"


@pytest.mark.parametrize(
    "text",
    [
        "I don't see any image attached.",
        "I'm sorry, but I can't see the image.",
        "Please upload the image you would like described.",
        "There is no image provided.",
        "It seems the image didn't upload correctly.",
    ],
)
def test_a_model_that_saw_nothing_is_asked_again(text: str) -> None:
    assert fault(text).failure == "transient"


@pytest.mark.parametrize(
    "text", ["", " \n\t", '""', "\u200b\u2063", "```\n```", "<think>It may be", "Caption:", "Sure!"]
)
def test_an_answer_with_nothing_in_it(text: str) -> None:
    assert fault(text) == Fault("transient", 200, "the answer is empty")


def test_an_answer_of_the_wrong_length() -> None:
    assert fault("cat") == Fault("transient", 200, "the answer is too short: 1 words, expected at least 2")
    assert fault("cat " * 61) == Fault("transient", 200, "the answer is too long: 61 words, expected at most 60")
    assert "longer than 60 words" in fault("<think></think>" + "cat" * 10**6).message
    assert fault("猫", language="zh").failure == "transient"
    assert caption("白猫猫", language="zh") == "白猫猫"


def test_an_answer_in_another_language() -> None:
    german, english = (
        "Ein Hund läuft über die Wiese und bellt laut in der Sonne.",
        "A dog runs over the meadow and barks loudly in the sun.",
    )
    end = fault(english, language="de")
    assert end.failure == "permanent"
    assert end.message.startswith("asked for de, answered in en (p 0.9")
    assert fault(german).message.startswith("asked for en, answered in de (p ")
    assert caption(german, language="de-CH") == german
    assert caption(english, language="gsw") == english
    assert caption("Ein Hund.", language="en") == "Ein Hund."


def test_what_is_quoted_may_be_in_any_language() -> None:
    sign = 'A sign: "Betreten der Baustelle verboten, Eltern haften für ihre Kinder."'
    assert caption(sign) == sign
    page = 'A photo of a German sign on a wall.\n"Betreten der Baustelle verboten"\nEltern haften für ihre Kinder'
    assert caption(page, DOCUMENT) == page
    longer = page.replace("on a wall", "that hangs on the wall of an old house in the country")
    assert fault(longer, DOCUMENT, "fr").failure == "permanent"


def test_a_transcription_keeps_its_lines_headings_and_numbers() -> None:
    page = 'A recipe on a white card.\n"Soup"\n1. Boil water.\n[illegible]\n2. Add salt.\nLet me know if it is good.'
    assert caption(page, DOCUMENT) == page
    assert caption(page.replace('"Soup"', "# **Soup**"), DOCUMENT) == page.replace('"Soup"', "Soup")


def test_an_example_given_back_is_no_answer() -> None:
    end = fault("\n".join(DOCUMENT.examples), DOCUMENT)
    assert end == Fault("transient", 200, "the answer repeats the prompt's example")


def test_regions_are_brought_into_one_form() -> None:
    said = "Here are the regions:\n1. **a cat**: [1, 2, 3, 4]\n- a mat：[0，0，1000，1000].\n"
    assert caption(said, REGIONS) == "a cat: [1, 2, 3, 4]\na mat: [0, 0, 1000, 1000]"


@pytest.mark.parametrize(
    "line",
    [
        "a cat",
        "[1, 2, 3, 4]",
        "a cat: [1, 2, 3]",
        "a cat: [3, 2, 1, 4]",
        "a cat: [1, 2, 1, 4]",
        "a cat: [1, 4, 3, 4]",
        "a cat: [1, 2, 3, 1001]",
        "a cat: [-1, 2, 3, 4]",
        "a cat: [0.1, 0.2, 0.3, 0.4]",
    ],
)
def test_a_line_that_is_no_region(line: str) -> None:
    end = fault(f"a mat: [0, 0, 9, 9]\n{line}", REGIONS)
    assert end.failure == "transient"
    assert end.message.startswith("the answer is malformed: line 2 ")


def test_the_language_of_regions_is_that_of_their_phrases() -> None:
    said = "ein schwarzer Hund auf der Wiese: [1, 2, 3, 4]\nein roter Ball neben dem Hund: [5, 6, 7, 8]"
    assert caption(said, REGIONS, "de") == said
    assert fault(said, REGIONS, "en").failure == "permanent"


PIECES = st.sampled_from(
    [
        *'"\'“”„«»「」*_`#>-+•.:：!~[]()\n\n ', "**", "__", "```", "# ", "## ", "- ", "> ", "1. ", "2) ", "---", "\n\n",
        "Here is a caption: ", "Sure! ", "Caption: ", "好的，", "以下是描述：", "A cat", "on a mat.", "猫", "e\u0301",
        "\u200b", "\u200d", "\u202e", "\ufe0f", "❤", "<think>", "</think>", "<|end|>", "[a](b)", ": [1, 2, 3, 4]",
        "Let me know",
    ]
)  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(PIECES | st.text(max_size=3), max_size=14).map("".join),
    st.sampled_from([LOOSE, ALT, DETAILED, DOCUMENT, REGIONS]),
    st.sampled_from(["en", "zh", "und"]),
)
def test_a_clean_caption_stays_as_it_is(text: str, prompt: Prompt, language: str) -> None:
    cleaned = clean(text, prompt, language)
    if isinstance(cleaned, str):
        assert clean(cleaned, prompt, language) == cleaned
        assert unicodedata.is_normalized("NFC", cleaned)
        assert prompt.lines or "\n" not in cleaned
        assert cleaned == cleaned.strip()
        assert not any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in cleaned if letter != "\n")
        assert not any(letter in cleaned for letter in "\u202e\u200e\u2066\u2063\ufeff")


@settings(deadline=None)
@given(st.lists(st.from_regex(r"\A[a-z]{2,9}(?:[-'_*][a-z]{2,9})?\Z"), min_size=2, max_size=20))
def test_plain_words_survive(words: list[str]) -> None:
    sentence = f"The {' '.join(words)}."
    assert clean(sentence, LOOSE, "und") == sentence


@pytest.mark.parametrize(
    "mark", ["**", "*a", "[", "`", '"', "> ", "# ", "- ", "I can't ", "sorry ", "Caption: ", "<think>", "__ "]
)
def test_a_hostile_answer_ends(mark: str) -> None:
    assert isinstance(clean(mark * (2**20 // len(mark)), DOCUMENT, "en"), Fault)
    clean(mark * (40_000 // len(mark)), DOCUMENT, "en")
