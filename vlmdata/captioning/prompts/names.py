"""English names of languages, as a prompt says them."""

from __future__ import annotations

_NAMES = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian",
    "bn": "Bengali", "bs": "Bosnian", "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "eo": "Esperanto", "es": "Spanish", "et": "Estonian", "eu": "Basque",
    "fa": "Persian", "fi": "Finnish", "fil": "Filipino", "fr": "French", "ga": "Irish", "gl": "Galician",
    "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian",
    "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh",
    "km": "Khmer", "kn": "Kannada", "ko": "Korean", "la": "Latin", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian",
    "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi", "ms": "Malay", "my": "Burmese",
    "nb": "Norwegian Bokmål", "ne": "Nepali", "nl": "Dutch", "nn": "Norwegian Nynorsk", "no": "Norwegian",
    "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "sq": "Albanian", "sr": "Serbian", "sv": "Swedish",
    "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian",
    "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "yue": "Cantonese", "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip

# Where the rest of the tag changes what is to be written.
_VARIETIES = {
    "en-gb": "British English", "en-us": "American English", "es-419": "Latin American Spanish",
    "fr-ca": "Canadian French", "pt-br": "Brazilian Portuguese", "pt-pt": "European Portuguese",
    "sr-cyrl": "Serbian in Cyrillic script", "sr-latn": "Serbian in Latin script",
    "zh-cn": "Simplified Chinese", "zh-hans": "Simplified Chinese", "zh-sg": "Simplified Chinese",
    "zh-hant": "Traditional Chinese", "zh-hk": "Traditional Chinese", "zh-tw": "Traditional Chinese",
}  # fmt: skip

_TAGS = {name.lower(): tag for tag, name in _NAMES.items()}


def english_name(tag: str) -> str:
    """`German` for `de` and `de-CH`, `Traditional Chinese` for `zh-TW`; a tag that is not listed names itself."""
    parts = tag.lower().replace("_", "-").split("-")
    return _VARIETIES.get("-".join(parts[:2])) or _NAMES.get(parts[0]) or tag


def tag_of(name: str) -> str | None:
    """The tag of a language's English name; null if it is not listed."""
    return _TAGS.get(name.strip().lower())
