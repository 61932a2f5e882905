"""Draw the funnel of a dataset as an SVG, for the README: `python docs/picture.py STORE DATASET OUT.svg`."""

from __future__ import annotations

import sys

from rich.console import Console

from vlmdata.checkpoint import Dataset
from vlmdata.console import funnel_tables
from vlmdata.status import status


def main(store: str, dataset: str, out: str) -> None:
    """Write the picture."""
    console = Console(record=True, width=84, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in funnel_tables(status(Dataset(store, dataset))):
        console.print(table)
    console.save_svg(out, title=f"vlmdata status --dataset {dataset}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
