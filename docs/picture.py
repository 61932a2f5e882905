"""Draw the funnel of a dataset as an SVG, for the README: `python docs/picture.py STORE DATASET OUT.svg`."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from vlmdata.checkpoint import Dataset
from vlmdata.console import funnel_tables
from vlmdata.status import status


def main(store: str, dataset: str, out: str) -> None:
    """Write the picture; its fonts are the reader's own, so that it loads nothing."""
    console = Console(record=True, width=104, file=io.StringIO())
    for table in funnel_tables(status(Dataset(store, dataset))):
        console.print(table)
    svg = console.export_svg(title=f"vlmdata status --dataset {dataset}", unique_id="funnel")
    Path(out).write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:4])
