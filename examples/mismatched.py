"""Makes sets of which a share of captions belongs to other pictures, for `vlmdata compare`.

Run: `apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps`, then
`python examples/mismatched.py --stamps stamps/usr/share/tuxpaint/stamps --out sets`, then for each share
`vlmdata compare sets/50 sets/0 --config sets/train.yaml --held-out sets/0 --out compared/50`.

Pictures are Tux Paint's stamps with their English descriptions (GPL-2), one picture a description.
The held-out ones, which a hash of their key picks, keep their captions in every set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from starter.stamps import ENGLISH, gallery, stamps
from starter.tars import write_tar

SHARES = (0, 10, 30, 50)
VALIDATION_SHARE = 0.2
CONFIG = f"""# What docs/training.md was measured with.
data: ./0
out: ./unused
model: starter
batch_per_device: 128
allow_small_batch: true
epochs: 2
epoch_steps: 4
stages:
  - {{epochs: 2, vision: projection, text: projection}}
base_lr: 1.0e-3
validation_share: {VALIDATION_SHARE}
alignment: {{model: starter, pretrained: null, max_misaligned: 1.0}}
trackers: []
"""


def main() -> None:
    """Write a folder for each share, and a training's config beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stamps", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = [stamp for stamp in stamps(options.stamps) if stamp.picture.suffix == ".png"]
    pictures = {stamp.key: stamp.picture for stamp in found}
    items = sorted((key, captions[0]) for key, captions in gallery(found, pictures, ENGLISH))
    for share in SHARES:
        captions = mismatched(items, share / 100)
        write_tar(options.out / f"{share}", ((key, pictures[key].read_bytes(), [captions[key]]) for key, _ in items))
    (options.out / "train.yaml").write_text(CONFIG, encoding="utf-8")
    print(f"{len(items)} pairs in each of {', '.join(f'{options.out}/{share}' for share in SHARES)}")


def mismatched(items: list[tuple[str, str]], share: float) -> dict[str, str]:
    """Captions by key; a share of those that are trained on is handed on to the next one of its kind."""
    from vlmdata.training.samples import TRAIN, split_of

    trained = [key for key, _ in items if split_of(key, VALIDATION_SHARE) == TRAIN]
    captions = dict(items)
    # The first of one order, so that what is wrong at 10 % is wrong at 30 % as well.
    drawn = [trained[at] for at in np.random.default_rng(0).permutation(len(trained))[: round(share * len(trained))]]
    return captions | {key: captions[other] for key, other in zip(drawn, [*drawn[1:], *drawn[:1]], strict=True)}


if __name__ == "__main__":
    main()
