"""Train the projections of the starters again, from freely licensed drawings, on a CPU.

    apt-get install openclipart-svg tuxpaint-stamps-default librsvg2-bin npm unicode-cldr-core
    python examples/train_starter.py --work /var/tmp/starter
    python examples/train_starter.py --work /var/tmp/starter --model starter-multilingual

1. Render openclipart (public domain) and two sets of emoji (Noto: Apache-2.0,
   Fluent: MIT) with rsvg-convert; put some of each aside.
2. Start from the bridge: ImageNet's class names, no training.
3. `starter` is trained by `vlmdata train`, with `examples/starter/english.yaml`,
   on the drawings as a WebDataset tar. Of `starter-multilingual` both frozen
   towers run once over everything, and the projections learn from what they said.
4. Calibrate on the drawings that were put aside, measure on them and on the
   Tux Paint stamps, of which nothing was trained on, and write weights, config,
   calibrations and card to --out.

The first run takes about three quarters of an hour on two cores, nearly all of
it in step 3; training that is done, and features, are kept in --work. The same
seed, library versions, machine and number of threads give the same bytes. The
parts are in `examples/starter/`, a recipe a model: `english.py` and `multilingual.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from starter import english, multilingual

from vlmdata.models.source import STARTERS

RECIPES = {"starter": english.main, "starter-multilingual": multilingual.main}


def main() -> None:
    """Make one model's folder."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=RECIPES, default="starter")
    parser.add_argument("--openclipart", type=Path, default=Path("/usr/share/openclipart/svg"))
    parser.add_argument("--stamps", type=Path, default=Path("/usr/share/tuxpaint/stamps"))
    parser.add_argument("--cldr", type=Path, default=Path("/usr/share/unicode/cldr/common/annotations"))
    parser.add_argument("--work", type=Path, required=True, help="keeps renderings, features and training")
    parser.add_argument("--out", type=Path, help="the model's own folder unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of torch; another number may give other last bits")
    options = parser.parse_args()
    options.out = options.out or STARTERS[options.model].FOLDER
    for folder in (options.work, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    RECIPES[options.model](options)


if __name__ == "__main__":
    main()
