"""What `starter-multilingual` is trained and measured on: openclipart in English, emoji in many languages, stamps."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from starter.drawings import Drawing, openclipart
from starter.emoji import IconSet, Names, fetch_emoji, held_out, names_in
from starter.rendering import apart, render, render_stamps
from starter.stamps import ENGLISH, Stamp, gallery, stamps
from starter.training import Item

LANGUAGES = (
    "en ar bg ca cs da de el es fa fi fr he hi hr hu id it ja ko nl no pl pt ro ru sk sl sr sv th tr uk vi zh".split()
)
"""Those that are trained on; English stands first, and names the emoji."""
UNSEEN = "eo eu ka lv ms".split()
"""Some that are not, to see how far the text tower carries."""
Naming = dict[str, dict[str, Names]]
"""By language: the emoji's names by character."""


@dataclass(frozen=True)
class Material:
    """Everything that is looked at, rendered.

    Attributes:
        pictures: rendered files by key.
        train_on: drawings to train on.
        held: openclipart's drawings that were put aside.
        characters: the emoji that a drawing's key shows.
        held_emoji: keys of the emoji that were put aside.
        names: what the emoji are called.
        stamps: Tux Paint's stamps.
    """

    pictures: dict[str, Path]
    train_on: list[Drawing]
    held: list[Drawing]
    characters: dict[str, str]
    held_emoji: list[str]
    names: Naming
    stamps: list[Stamp]

    def training_items(self) -> list[Item]:
        """Pictures with all captions: an emoji by its name in every language, in English with keywords too."""
        return [(drawing.key, self._captions(drawing)) for drawing in self.train_on]

    def held_emoji_in(self, language: str) -> list[Item]:
        """The emoji that were put aside, by name; each name once."""
        told = self.names[language]
        named = {told[self.characters[key]].name: key for key in self.held_emoji if self.characters[key] in told}
        return [(key, [name]) for name, key in named.items()]

    def stamps_in(self, language: str) -> list[Item]:
        """The stamps by their descriptions."""
        return gallery(self.stamps, self.pictures, language)

    def _captions(self, drawing: Drawing) -> list[str]:
        if drawing.key not in self.characters:
            return drawing.captions()
        character = self.characters[drawing.key]
        told = [names[character] for names in self.names.values() if character in names]
        return [*(name.name for name in told), self.names[ENGLISH][character].full]


def gather(options: Namespace) -> Material:
    """Read and render; what looks like a picture that measures is not trained on."""
    drawings, icon_sets, found = openclipart(options.openclipart), fetch_emoji(options.work), stamps(options.stamps)
    names = {language: names_in(options.cldr, language) for language in LANGUAGES}
    named = [(character, drawing) for icons in icon_sets for character, drawing in icons.drawn()]
    characters = {drawing.key: character for character, drawing in named if character in names[ENGLISH]}
    aside = held_out(set(characters.values()))
    folder = options.work / "pictures"
    pictures = render([*drawings, *(drawing for _, drawing in named)], folder) | render_stamps(found, folder)

    held = [drawing for drawing in drawings if drawing.part == "held out" and drawing.key in pictures]
    held_emoji = [key for key in _keys(icon_sets[0]) if characters.get(key) in aside and key in pictures]
    measured_on = [*(drawing.key for drawing in held), *held_emoji, *(stamp.key for stamp in found)]
    free = [drawing for drawing in drawings if drawing.part == "train"]
    free += [drawing for _, drawing in named if drawing.key in characters and characters[drawing.key] not in aside]
    train_on = apart(free, pictures, [pictures[key] for key in measured_on if key in pictures])
    return Material(pictures, train_on, held, characters, held_emoji, names, found)


def _keys(icons: IconSet) -> list[str]:
    return [drawing.key for _, drawing in icons.drawn()]
