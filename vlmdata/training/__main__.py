"""`torchrun --nproc-per-node N -m vlmdata.training CONFIG [key=value …]`: one training on several devices."""

from __future__ import annotations

import os
import sys

from vlmdata.errors import ConfigError, VlmdataError


def main(arguments: list[str]) -> int:
    """Train; returns the exit code. Each process says what is wrong, as the first of them may be another machine's."""
    from contextlib import nullcontext

    from vlmdata.console import print_lines, progress_bars, visible
    from vlmdata.training.card import as_lines
    from vlmdata.training.config import TRAIN
    from vlmdata.training.train import train

    first = os.environ.get("RANK", "0") == "0"
    try:
        if not arguments:
            raise ConfigError(
                "no config; expected: torchrun --nproc-per-node N -m vlmdata.training CONFIG [key=value …]"
            )
        config = TRAIN.read(arguments[0], arguments[1:])
        with progress_bars() if first else nullcontext():
            told = train(config)
    except VlmdataError as error:
        sys.stderr.write(f"vlmdata: {visible(str(error))}\n")
        return error.exit_code
    if first:
        print_lines(as_lines(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
