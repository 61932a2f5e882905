"""Old versions without whom a withdrawal is about: their hash index, and their counts."""

from __future__ import annotations

from vlmdata import layout
from vlmdata.checkpoint import Dataset
from vlmdata.filtering.hash_index import HashIndex
from vlmdata.forgetting.tables import Scrubber
from vlmdata.layout import Step
from vlmdata.versions.version import Version, numbers, read_version


def scrub_versions(scrubber: Scrubber) -> list[tuple[Version, Version]]:
    """Every version, as it was and as it is from now on; those that change are written anew under their own number."""
    dataset = scrubber.dataset
    found = []
    for number in numbers(dataset):
        version = read_version(dataset, number)
        new = version.model_copy(update={"index": _index(scrubber, version.index), **_counts(dataset, version)})
        if new != version:
            dataset.store.replace(layout.version_path(dataset.name, number), new.model_dump_json(indent=1).encode())
        found.append((version, new))
    return found


def _index(scrubber: Scrubber, index: HashIndex) -> HashIndex:
    segments, homes = [], dict(index.homes)
    for number, ref in enumerate(index.segments):
        told = scrubber.table(Step.DUPLICATES, ref)
        segments.append(told[0] if told else ref)
        for shard in told[1]["shard"].to_pylist() if told else ():
            home = homes.get(shard)
            if home is not None and home.segment == number:
                homes[shard] = home.model_copy(update={"rows": home.rows - 1})
    return HashIndex(segments=tuple(segments), homes=homes)


def _counts(dataset: Dataset, version: Version) -> dict[str, int]:
    done = [dataset.manifest_at(path) for path in version.steps.get(Step.FINAL, {}).values()]
    return {"samples": sum(one.samples.kept for one in done), "captions": sum(one.captions.kept for one in done)}
