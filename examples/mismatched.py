"""Makes sets of which a share of captions belongs to other pictures, for `vlmdata compare`.

    python examples/train_starter.py --work WORK
    python examples/mismatched.py --data WORK/drawings --out sets
    vlmdata compare sets/50 sets/0 --config sets/train.yaml --held-out sets/0 --seeds 3 --out compared/50

`--data` is any folder of WebDataset tars of PNGs with captions in their JSON; docs/training.md tells of the
drawings that `starter` learned from. Of pictures with the same first caption one is taken. The held-out ones,
which a hash of their key picks, keep their captions in every set.
"""

from __future__ import annotations

import argparse
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from starter.tars import write_tar

SHARES = (0, 10, 30, 50)
VALIDATION_SHARE = 0.2
CONFIG = f"""# What docs/training.md was measured with: `starter` from before its training.
data: ./0
out: ./unused
model: starter
pretrained: bridge
batch_per_device: 256
epochs: 2
epoch_steps: 20
stages:
  - {{epochs: 2, vision: projection, text: projection}}
base_lr: 1.0e-3
warmup: 0.1
projection_dropout: 0.3
crop_scale: [0.4, 1.0]
validation_share: {VALIDATION_SHARE}
alignment: {{model: starter, pretrained: null, max_misaligned: 1.0}}
trackers: []
"""


class Pair(NamedTuple):
    """A picture and what is said of it."""

    key: str
    picture: bytes
    captions: list[str]


def main() -> None:
    """Write a folder for each share, and a training's config beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pairs = sorted({pair.captions[0]: pair for pair in read(options.data)}.values())
    for share in SHARES:
        write_tar(options.out / f"{share}", mismatched(pairs, share / 100))
    (options.out / "train.yaml").write_text(CONFIG, encoding="utf-8")
    print(f"{len(pairs)} pairs in each of {', '.join(f'{options.out}/{share}' for share in SHARES)}")


def read(folder: Path) -> Iterator[Pair]:
    """The pairs of a folder's tars, in the order of their names."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
            for name in sorted(files):
                said, picture = files[name], files.get(name.removesuffix(".json") + ".png")
                if name.endswith(".json") and said and picture:
                    captions = [caption["text"] for caption in json.load(said)["captions"]]
                    yield Pair(name.removesuffix(".json"), picture.read(), captions)


def mismatched(pairs: list[Pair], share: float) -> Iterator[Pair]:
    """The same pictures; a share of those that are trained on has the captions of the next one of its kind."""
    from vlmdata.training.samples import TRAIN, split_of

    trained = [row for row, pair in enumerate(pairs) if split_of(pair.key, VALIDATION_SHARE) == TRAIN]
    # The first of one order, so that what is wrong at 10 % is wrong at 30 % as well.
    drawn = [trained[at] for at in np.random.default_rng(0).permutation(len(trained))[: round(share * len(trained))]]
    says = dict(zip(drawn, [*drawn[1:], *drawn[:1]], strict=True))
    for row, pair in enumerate(pairs):
        yield pair._replace(captions=pairs[says.get(row, row)].captions)


if __name__ == "__main__":
    main()
