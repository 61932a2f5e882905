"""A version: which checkpoints make up the set that was published, under a number that is given once.

`versions/<n>.json` is put conditionally and never changed. Whoever finds the
number taken was overtaken: what stands was published meanwhile, and the build
decides again on top of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from vlmdata import layout
from vlmdata.checkpoint import Dataset, Shard
from vlmdata.errors import ConfigError, StoreError
from vlmdata.filtering.hash_index import HashIndex
from vlmdata.filtering.pool import Standing
from vlmdata.layout import Stage, Step


class Changes(BaseModel):
    """Samples of a version beside those of another one."""

    model_config = ConfigDict(frozen=True)

    added: int = 0
    removed: int = 0
    changed: int = 0


class Version(BaseModel):
    """One published version."""

    model_config = ConfigDict(frozen=True)

    number: int
    parent: int | None
    run: int
    """Whose records tell its config, its funnel and its health."""
    published: str
    samples: int
    captions: int
    changes: Changes
    """Beside its parent."""
    export: str
    """Where the exported files were put: below the store, or an absolute place."""
    rows: dict[str, int]
    """Of each shard, and of each exported one under `04_final/<name>`."""
    steps: dict[str, dict[str, str]]
    """Step → shard → its manifest; a step of all shards has one, `all`."""
    rules: str
    """What its near-duplicates were decided by."""
    reads: dict[str, str]
    index: HashIndex

    @property
    def shards(self) -> list[Shard]:
        """Its shards, with every checkpoint up to 03."""
        own = {step: paths for step, paths in self.steps.items() if step not in _OF_EXPORT}
        return [
            Shard(name, self.rows[name], {step: path for step, paths in own.items() if (path := _of(paths, name))})
            for name in sorted(self.steps[Step.CHECKED])
        ]

    @property
    def exported(self) -> list[Shard]:
        """The export's shards."""
        own = {step: paths for step, paths in self.steps.items() if step in _OF_EXPORT}
        return [
            Shard(
                name,
                self.rows[f"{Stage.FINAL}/{name}"],
                {step: path for step, paths in own.items() if (path := _of(paths, name))},
            )
            for name in sorted(self.steps.get(Step.FINAL, {}))
        ]

    @property
    def selected(self) -> str | None:
        """The checkpoint of its selection, if there was one."""
        return self.steps.get(Step.SELECTED, {}).get(_ALL)

    @property
    def standing(self) -> Standing:
        """What a later decision about near-duplicates rests on."""
        return Standing(
            self.index, self.steps[Step.DUPLICATES][_ALL], self.reads, {shard.name: shard for shard in self.shards}
        )

    def same_content(self, other: Version) -> bool:
        """Whether the two are made of the same samples, captions, scores and files."""
        return all(self.steps.get(step) == other.steps.get(step) for step in Stage)


_ALL = "all"
_OF_EXPORT = (Step.SELECTED.value, Step.EXPORT_PLAN.value, Step.FINAL.value)
_GLOBAL = (Step.CLOSE.value, Step.DUPLICATES.value, Step.SELECTED.value)


def _of(paths: dict[str, str], shard: str) -> str | None:
    """A shard's own manifest, or that of all shards; None: it has none at this step."""
    return paths.get(shard) or paths.get(_ALL)


def steps_of(shards: Sequence[Shard], exported: Sequence[Shard]) -> dict[str, dict[str, str]]:
    """Step → shard → manifest, as a version lists them."""
    steps: dict[str, dict[str, str]] = {step: {} for step in _OF_EXPORT}
    for shard in (*shards, *exported):
        for step, path in shard.manifests.items():
            steps.setdefault(step, {})[_ALL if step in _GLOBAL else shard.name] = path
    return steps


def numbers(dataset: Dataset) -> list[int]:
    """The numbers that are given, smallest first."""
    names = dataset.store.children(layout.versions_prefix(dataset.name))
    return sorted(int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdecimal())


def newest_number(dataset: Dataset) -> int | None:
    """The highest number; None: nothing was published."""
    return max(numbers(dataset), default=None)


def read_version(dataset: Dataset, number: int) -> Version:
    """A published version.

    Raises:
        ConfigError: there is none of that number; those there are are named.
        StoreError: it is not what was written.
    """
    path = layout.version_path(dataset.name, number)
    try:
        return Version.model_validate_json(dataset.store.get(path))
    except FileNotFoundError:
        known = numbers(dataset)
        hint = f"it has {known[0]} to {known[-1]}" if known else "nothing was published yet: vlmdata build"
        where = f"dataset {dataset.name!r} in {dataset.store_url}"
        raise ConfigError(f"version {number}: {where} has no such version; {hint}") from None
    except ValidationError as error:
        raise StoreError(f"{dataset.store.locate(path)}: is damaged; it is the record of version {number}") from error


def put_version(dataset: Dataset, version: Version) -> bool:
    """Publish it; False: its number was taken before."""
    data = version.model_dump_json(indent=1).encode()
    return dataset.store.create(layout.version_path(dataset.name, version.number), data)


def selections(dataset: Dataset, newest: int | None) -> Iterator[str]:
    """The selections of the versions up to a number, newest first."""
    for number in reversed([number for number in numbers(dataset) if newest is not None and number <= newest]):
        if selected := read_version(dataset, number).selected:
            yield selected


def version_under(dataset: Dataset, rules: str, newest: int | None) -> Version | None:
    """The newest version, up to a number, whose near-duplicates were decided under the same rules, if there is one."""
    for number in reversed([number for number in numbers(dataset) if newest is not None and number <= newest]):
        version = read_version(dataset, number)
        if version.rules == rules:
            return version
    return None
