"""The recipe of `starter-multilingual`: openclipart in English, and emoji by the names they have in many languages."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from typing import Any

from starter.features import Towers
from starter.files import Folder
from starter.material import LANGUAGES, Material, gather
from starter.results import MIN_AUC, Results
from starter.training import BATCH, VIEWS, blend, pairs_of, train
from vlmdata.models import starter_multilingual
from vlmdata.models.source import read_config
from vlmdata.models.starter.bridge import class_names, set_classes
from vlmdata.models.starter_multilingual.build import TRAINED, tower_hashes, untrained

EPOCHS = 50
BLEND = 0.7
"""How far to go from the start to what training ends at; see the card for how both were chosen."""
NOTE = "{n} emoji that were not trained on, with their names; by examples/train_starter.py"


def main(options: Namespace) -> None:
    """Make the folder of `starter-multilingual`."""
    import torch

    material = gather(options)
    torch.manual_seed(options.seed)  # the projections are drawn as the model is built
    towers = Towers(untrained(read_config(starter_multilingual.CONFIG)), options.work, "texts-multilingual")
    model = towers.parts.model
    pairs = pairs_of(towers, material.pictures, material.training_items(), VIEWS)
    start(model, towers, material)
    bridge = Results.of(model, towers, material)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith(TRAINED)}
    train(model, pairs, EPOCHS)
    blend(model, before, BLEND)

    folder = Folder(options.out, starter_multilingual.NAME, starter_multilingual.WEIGHTS.name)
    folder.save(model, TRAINED)
    trained = Results.of(model, towers, material)
    folder.write_config(starter_multilingual.CONFIG, languages=trained.listed(), towers=tower_hashes())
    for language, bands in trained.bands().items():
        searched = trained.emoji[language].trusted(bands)
        folder.write_calibration(bands, searched, language, NOTE.format(n=bands.n), f"calibration.{language}.json")
    sources = Counter(drawing.source for drawing in material.train_on)
    folder.write_card(
        "multilingual.md",
        size=folder.megabytes,
        dim=model.text.output_dim,
        context=towers.parts.tokenizer.context_length,
        held_out=trained.held_out_table(),
        stamps=trained.stamp_table(),
        bridge=bridge.stamp_table(only=("en", "fr", "zh")),
        bands=trained.band_table(),
        listed=", ".join(trained.listed()),
        min_auc=MIN_AUC,
        languages=len(LANGUAGES),
        count=len(material.train_on),
        sources=", ".join(f"{count:,} {source}" for source, count in sorted(sources.items())),
        seed=options.seed,
        epochs=EPOCHS,
        blend=BLEND,
        batch=BATCH,
    )
    print(trained.held_out_table(), trained.stamp_table(), trained.band_table(), sep="\n")


def start(model: Any, towers: Towers, material: Material) -> None:
    """The bridge as the image head; the text projection takes away the mean of all names of emoji, and no more."""
    import torch

    shown = sorted(set(material.characters.values()))
    told = [names[one].name for names in material.names.values() for one in shown if one in names]
    sentences = towers.texts(told)
    centre = torch.from_numpy(sum(sentences.values()) / len(sentences))
    with torch.no_grad():
        model.text.proj.mean.copy_(centre)
        torch.nn.init.eye_(model.text.proj.linear.weight)
        set_classes(model.visual.head, model.text.proj(class_names(towers.parts)))
