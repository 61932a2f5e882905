"""A run's report as one file, of a size that a browser opens at once, however large the set."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from vlmdata.checkpoint import Dataset
from vlmdata.errors import ConfigError
from vlmdata.health.plots import require_plotting
from vlmdata.layout import Stage
from vlmdata.report.draw import Gallery, galleries, shown
from vlmdata.report.ledger import Ledger, Row, ledger_of
from vlmdata.report.overview import Overview, bounds, choices, overview
from vlmdata.report.page import about, as_script, page
from vlmdata.report.pictures import MIME, thumbnails
from vlmdata.report.records import records
from vlmdata.report.training import Trained
from vlmdata.runs import Run

LARGEST = 15_000_000
"""Bytes of a page."""
_TEXT = 5_000_000
"""Bytes of it that samples may take, their pictures aside."""
_ROOM = 200_000
"""Left free: nothing that is counted here is that wrong."""
CARDS = 48
"""Of a gallery, at most."""
_FEWEST = 3
_MOST_PIXELS = 50_000_000
"""A picture of more is not decoded for the sake of a thumbnail."""


def make_report(run: Run, training: Trained | None = None) -> bytes:
    """The page, under `LARGEST` bytes; the same bytes whenever it is made of the same run.

    Args:
        training: What a model learned from the set, to be told, too.

    Raises:
        ConfigError: nothing to plot with is installed, or the run has read nothing yet.
        StoreError: a checkpoint is gone or damaged.
    """
    require_readable(run)
    seen = overview(run)
    with ThreadPoolExecutor(1, thread_name_prefix="charts") as beside, ledger_of(run) as ledger:
        # Drawing leaves this process's other cores to the pictures.
        drawing = beside.submit(about, seen, training)
        drawn, told = _that_fit(ledger, seen)
        made = _thumbnails(run, told)
        whole, data = drawing.result(), page_data(run.dataset, ledger, seen, drawn)
    room = LARGEST - _ROOM - len(page(whole, {**data, "samples": [], "thumbs": {}}))
    told = first_within(told, min(_TEXT, room))
    urls = _urls(told, made, room - len(as_script(told).encode()))
    return page(whole, {**data, "samples": told, "thumbs": urls})


def write_file(target: Path, page: bytes) -> None:
    """Put a page where a person wants it, whole.

    Raises:
        ConfigError: it cannot be written there.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(page)
            part.replace(target)
        finally:
            # On a full disk, what came of it takes room that somebody needs.
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {target}: cannot be written ({error.strerror}); give another file") from error


def require_readable(run: Run) -> None:
    """Fail in one line if there is nothing to plot with, or nothing to show.

    Raises:
        ConfigError: says which.
    """
    require_plotting()
    if run.stage(Stage.RAW) is None:
        raise ConfigError(
            f"dataset = {run.dataset.name!r}: run {run.number} has not come through {Stage.RAW}; build it first"
        )


def page_data(dataset: Dataset, ledger: Ledger, seen: Overview, drawn: Sequence[Gallery]) -> dict[str, Any]:
    """What the script shows, less the samples and their thumbnails."""
    told = seen.told
    return {
        "served": False,
        "dataset": told["dataset"],
        "explain": ["vlmdata explain", f"--store {dataset.store_url} --dataset {dataset.name}"],
        "total": ledger.value("SELECT count(*) FROM samples"),
        "stages": [stage.value for stage in Stage],
        "choices": choices(ledger),
        "bounds": bounds(ledger),
        "galleries": [gallery.as_dict() for gallery in drawn],
    }


def _that_fit(ledger: Ledger, seen: Overview) -> tuple[list[Gallery], list[Row]]:
    """Galleries and their samples, with fewer cards each until their text is short enough."""
    most = CARDS
    while True:
        drawn = galleries(ledger, most, seen.unfound)
        told = records(ledger, shown(drawn))
        if most <= _FEWEST or len(as_script(told).encode()) <= _TEXT:
            return drawn, told
        most = max(_FEWEST, most // 2)


def first_within(told: Sequence[Row], room: int) -> list[Row]:
    """The first records, as many as the page's script has in so many bytes.

    What a stranger wrote is cut already, so this is for many long ones: how
    many, and how long, is theirs to choose, and the size of the page is not.
    """
    ends = accumulate((len(as_script(row).encode()) + len(",") for row in told), initial=len("[]"))
    return [row for row, end in zip(told, islice(ends, 1, None), strict=True) if end <= room]


def _thumbnails(run: Run, told: Sequence[Row]) -> dict[str, bytes]:
    raw = run.stage(Stage.RAW)
    wanted: dict[str, list[str]] = {}
    for row in told:
        if has_thumbnail(row):
            wanted.setdefault(row["shard"], []).append(row["id"])
    return dict(thumbnails(run.dataset, raw.shards if raw else (), wanted))


def _urls(told: Sequence[Row], made: Mapping[str, bytes], room: int) -> dict[str, str]:
    """Data URLs by id, in the order of the samples, as long as there is room."""
    found = {}
    for row in told:
        if row["id"] in made:
            url = f"data:{MIME};base64,{b64encode(made[row['id']]).decode()}"
            room -= len(url) + len(row["id"]) + 6
            if room < 0:
                break
            found[row["id"]] = url
    return found


def has_thumbnail(row: Row) -> bool:
    """Whether a record is of a picture that decoded whole, and is not huge."""
    return "width" in row and "error" not in row and row["width"] * row["height"] <= _MOST_PIXELS
