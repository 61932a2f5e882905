"""Where a sample lies in an export: file, offset, and the digest of the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vlmdata import layout
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.layout import Stage, Step
from vlmdata.lineage.lookup import holds, rows
from vlmdata.lineage.plain import plain
from vlmdata.lineage.view import View

_AT_ONCE = 16


def exported(view: View, sample: str, key: str) -> tuple[str, dict[str, Any]] | None:
    """Whether a sample was exported (kept), left out (rejected, held) or could not be (failed), and the facts of it."""
    dataset = view.dataset
    for shard in _likely_first(dataset, view.shards(Stage.FINAL), key, sample):
        for table in ("samples", "rejects"):
            found = rows(dataset, shard, Step.FINAL, table, sample).to_pylist()
            if found:
                facts = plain(found[0])
                return facts.pop("outcome", "kept"), {**facts, **_places(dataset, shard, sample)}
    return None


def _places(dataset: Dataset, shard: Shard, sample: str) -> dict[str, Any]:
    made = dataset.manifest(shard, Step.FINAL).facts
    files = {str(file["path"]): file for file in made["files"]}
    prefix = layout.export_prefix(dataset.name, made["export"])
    places = [
        {
            **plain(row),
            # A picture in a file of its own, which MANIFEST.json does not name, is told above.
            **{name: files[row["file"]][name] for name in ("sha256", "bytes") if row["file"] in files},
            "location": dataset.store.locate(f"{prefix}/{row['file']}"),
        }
        for row in rows(dataset, shard, Step.FINAL, "places", sample).to_pylist()
    ]
    left_out = [plain(row) for row in rows(dataset, shard, Step.FINAL, "caption_rejects", sample).to_pylist()]
    return {"export": made["export"], "captions not kept": left_out, "places": places}


def _likely_first(dataset: Dataset, shards: Sequence[Shard], key: str, sample: str) -> Iterator[Shard]:
    """The shard where the order of an export has it, if it is there; then each that holds it."""
    guess = _guess(dataset, shards, key, sample)
    if guess is not None:
        yield guess
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        hits = pool.map(lambda shard: _holds(dataset, shard, sample), shards)
        yield from (shard for shard, hit in zip(shards, hits, strict=True) if hit)


def _holds(dataset: Dataset, shard: Shard, sample: str) -> bool:
    tables = dataset.manifest(shard, Step.FINAL).tables
    return any(holds(dataset, tables.get(name), sample) for name in ("samples", "rejects"))


def _guess(dataset: Dataset, shards: Sequence[Shard], key: str, sample: str) -> Shard | None:
    """Files of one export follow the order of (key, id): a few are opened, not all. Increments do not."""
    low, high = 0, len(shards)
    while low < high:
        middle = (low + high) // 2
        shard = shards[middle]
        if _holds(dataset, shard, sample):
            return shard
        first = dataset.read(shard, Step.FINAL, "samples", ["key", "id"]).slice(0, 1).to_pylist()
        if not first:
            return None
        if (key, sample) < (first[0]["key"], first[0]["id"]):
            high = middle
        else:
            low = middle + 1
    return None
