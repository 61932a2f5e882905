"""A list of addresses becomes 00_raw: every row is accounted for, and nothing is asked for twice."""

from __future__ import annotations

import json
import re
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.integration.prefect_server import PrefectServer
from tests.integration.processes import environment, run, vlmdata
from tests.integration.warm import Forked
from tests.servers.hostile_web import HostileWeb, hostile_web, picture
from tests.unit.conftest import Tiny
from vlmdata.checkpoint import Dataset, Manifest, Shard
from vlmdata.config import BuildConfig
from vlmdata.config_reading import load_config, parse_config
from vlmdata.errors import SourceError
from vlmdata.forgetting.who import manifests
from vlmdata.ingest import reading
from vlmdata.ingest.listing import list_source
from vlmdata.ingest.shards import find_ingested, ingest_shard
from vlmdata.layout import Stage, Step, forgotten_prefix

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def web() -> Iterator[HostileWeb]:
    with hostile_web() as server:
        yield server


def written(folder: Path, web: HostileWeb, paths: list[str], **changes: Any) -> Path:
    """A list of these paths, and a config for it."""
    rows = [{"url": web.url(path), "caption": [f"a {n}", f"b {n}"], "n": n} for n, path in enumerate(paths)]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    network = {"allow_networks": [f"{web.host}/32"], "retries": 0, "first_byte_timeout_s": 1, "timeout_s": 2}
    config = {
        "dataset": "web",
        "source": {"kind": "urls", "path": "list.jsonl"},
        "shard_size": 10,
        "network": network | changes.pop("network", {}),
        "caption": {"policy": "none"},
        "quality": {"model": "starter", "pretrained": None, "accept_above": -1, "reject_below": -1},
        **changes,
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    return folder / "config.yaml"


def ingested(path: Path) -> tuple[Dataset, BuildConfig, list[Shard]]:
    config = load_config(path)
    dataset = Dataset(config.store, config.dataset)
    return dataset, config, [ingest_shard(dataset, shard, config) for shard in list_source(dataset, config)]


def rows(dataset: Dataset, shards: list[Shard], table: str) -> list[dict[str, Any]]:
    manifests = [dataset.manifest(shard, Step.RAW) for shard in shards]
    return [row for each in manifests if table in each.tables for row in dataset.table(each.tables[table]).to_pylist()]


GOOD = [f"/picture/{number}.jpg" for number in range(23)]
BAD = ["/status/404", "/status/503", "/page.jpg", "/noai.jpg", "/short"]


def test_every_row_is_accounted_for(tmp_path: Path, web: HostileWeb) -> None:
    path = written(tmp_path, web, [*GOOD, *BAD, "/picture/1.jpg"])
    with (tmp_path / "list.jsonl").open("a") as file:
        file.write('\n{"url": "nonsense", "caption": "x"}')
    dataset, _, shards = ingested(path)
    samples, rejects, fetches = (rows(dataset, shards, name) for name in ("samples", "rejects", "fetches"))
    assert [sample["url"] for sample in samples] == [web.url(path) for path in GOOD]
    assert [sample["sha256"] for sample in samples] == [sha256(picture(n)).hexdigest() for n in range(23)]
    assert json.loads(samples[3]["extra"]) == {"n": 3}
    images = {row["id"]: row["image"] for row in rows(dataset, shards, "images")}
    assert [images[sample["id"]] for sample in samples] == [picture(n) for n in range(23)]
    assert {row["code"] for row in rejects} == {
        *("http_404", "http_503", "web_page", "x_robots_tag", "connection_lost", "malformed_url")
    }
    assert [row["url"] for row in fetches] == [*(web.url(path) for path in [*GOOD, *BAD]), "nonsense"]
    assert sorted(row["id"] for row in fetches) == sorted(row["id"] for row in [*samples, *rejects])
    asked = fetches.pop()
    assert (asked["outcome"], asked["code"], asked["attempts"]) == ("rejected", "malformed_url", 0)
    assert asked["detail"] == "no address that can be asked" and asked["time"] is asked["seconds"] is None
    assert all(row["attempts"] for row in fetches)
    captions = rows(dataset, shards, "captions")
    assert len([each for each in captions if each["id"] == samples[1]["id"]]) == 4
    for shard in shards:
        dataset.manifest(shard, Step.RAW).samples.check("samples")


EVIL = ["/name/..%2F..%2Fevil.jpg", "/name/../../evil.jpg", "/name/x"]
"""Names that would be a file above the folder; the server calls each `EVIL_NAME`, too."""


@dataclass(frozen=True)
class Home:
    """A folder deep below another, in which a list was built into an export."""

    above: Path
    dataset: Dataset
    web: HostileWeb

    def samples(self, stage: Stage) -> list[dict[str, Any]]:
        """Of every shard of a stage."""
        every = manifests(self.dataset, Step(stage.value)).values()
        return [row for each in every for row in table_of(self.dataset, each, "samples")]

    def files(self, format_: str, suffix: str) -> list[Path]:
        """Of the export."""
        folder = Path(self.dataset.store.locate(f"{self.dataset.name}/{Stage.FINAL}"))
        return sorted(path for path in folder.glob(f"*/{format_}/**/*{suffix}"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    above = tmp_path_factory.mktemp("above")
    inside = above / "a" / "b" / "c"
    (inside / "tmp").mkdir(parents=True)
    with hostile_web() as web, pytest.MonkeyPatch.context() as patch:
        patch.chdir(inside)
        patch.setattr(tempfile, "tempdir", str(inside / "tmp"))
        web.pictures["/evil.jpg"] = picture(30)
        formats = ["webdataset", "parquet", "llava"]
        paths = [*EVIL, *GOOD[1:6]]
        config = load_config(written(inside, web, paths, filter={"min_side": 16}, export={"formats": formats}))
        dataset = Dataset(config.store, config.dataset)
        Tiny(dataset, config).ingested().filtered().captioned().judged({}).exported()
        yield Home(above, dataset, web)


def test_what_a_list_says_more_is_carried_into_every_stage_and_export(home: Home) -> None:
    """The column `n` of the list, which no stage knows."""
    said = {home.web.url(path): {"n": n} for n, path in enumerate([*EVIL, *GOOD[1:6]]) if path in GOOD}
    for stage in Stage:
        if stage is not Stage.FINAL:
            told = {row["key"]: json.loads(row["extra"]) for row in home.samples(stage) if row["key"] in said}
            assert told == said, stage
    told = {}
    for path in home.files("webdataset", ".tar"):
        with tarfile.open(path) as archive:
            sidecars = [archive.extractfile(member) for member in archive if member.name.endswith(".json")]
            told |= {row["key"]: row["extra"] for row in (json.load(each) for each in sidecars if each)}
    assert {key: extra for key, extra in told.items() if key in said} == said
    tables = [pq.read_table(path, columns=["key", "extra"]) for path in home.files("parquet", ".parquet")]
    told = {row["key"]: json.loads(row["extra"]) for table in tables for row in table.to_pylist()}
    assert {key: extra for key, extra in told.items() if key in said} == said


def test_a_name_that_a_server_gives_is_the_name_of_nothing(home: Home) -> None:
    """Nor is that of an address: neither a file below the folder, nor an object, nor a member of an archive."""
    assert {seen.path for seen in home.web.requests} >= {EVIL[0], "/evil.jpg", EVIL[2]}, "they were downloaded"
    raw = {row["key"] for row in home.samples(Stage.RAW)}
    assert raw >= {home.web.url(path) for path in EVIL} and home.files("llava", ".jpg")
    names = [str(path.relative_to(home.above)) for path in home.above.rglob("*")]
    names += home.dataset.store.list("")
    for path in home.files("webdataset", ".tar"):
        with tarfile.open(path) as archive:
            names += archive.getnames()
    assert [name for name in names if "evil" in name or ".." in name] == []


def test_the_query_of_the_page_says_how_hosts_did(tmp_path: Path, web: HostileWeb, monkeypatch: Any) -> None:
    ingested(written(tmp_path, web, [*GOOD[:3], *BAD[:2]]))
    [query] = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/urls.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    told = {code: count for _, code, count, _ in duckdb.sql(query).fetchall()}
    assert told == {None: 3, "http_404": 1, "http_503": 1}


@pytest.mark.parametrize("most_bytes", [64 << 20, 6_000])
def test_a_rerun_asks_for_what_may_pass_and_ends_as_if_nothing_had_failed(
    tmp_path: Path, web: HostileWeb, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    monkeypatch.setattr(reading, "BYTES_AT_A_TIME", most_bytes)
    flaky = [*GOOD[:4], "/flaky/1/4.jpg", *GOOD[5:9], "/flaky/2/9.jpg", "/status/404", "/flaky/1/11.jpg"]
    path = written(tmp_path, web, flaky)
    dataset, config, first = ingested(path)
    assert [dataset.manifest(shard, Step.RAW).open for shard in first] == [2, 1]
    assert find_ingested(dataset, list_source(dataset, config), config) == []
    web.requests.clear()
    _, _, second = ingested(path)
    asked = Counter(seen.path for seen in web.requests if seen.path.startswith(("/picture", "/flaky", "/status")))
    assert asked == {"/flaky/1/4.jpg": 1, "/flaky/2/9.jpg": 1, "/flaky/1/11.jpg": 1}
    assert [dataset.manifest(shard, Step.RAW).open for shard in second] == [1, 0]
    _, _, third = ingested(path)
    assert find_ingested(dataset, list_source(dataset, config), config) == third

    # The same list from a server that never failed.
    unbroken, _, shards = ingested(written(tmp_path, web, flaky, store=str(tmp_path / "other")))
    for mine, theirs in zip(third, shards, strict=True):
        for table in ("samples", "images", "captions", "rejects"):
            kept = dataset.manifest(mine, Step.RAW).tables[table]
            assert kept == unbroken.manifest(theirs, Step.RAW).tables[table], table
    assert [row["outcome"] for row in rows(dataset, third, "fetches")].count("kept") == 11


def test_a_changed_list_keeps_what_was_downloaded(tmp_path: Path, web: HostileWeb) -> None:
    path = written(tmp_path, web, GOOD[:20])
    ingested(path)
    web.requests.clear()
    with (tmp_path / "list.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"url": web.url(GOOD[20])}))
    _, _, shards = ingested(path)
    assert [shard.rows for shard in shards] == [10, 10, 1]
    assert {seen.path for seen in web.requests if "picture" in seen.path} == {GOOD[20]}


def test_a_list_that_changes_in_its_middle_downloads_what_is_new(tmp_path: Path, web: HostileWeb) -> None:
    """A line in the middle comes, two go, one says something else; what failed for good is not asked for again."""
    path = written(tmp_path, web, [*GOOD[:19], "/status/404"])
    ingested(path)
    web.requests.clear()
    lines = [json.loads(line) for line in (tmp_path / "list.jsonl").read_text().splitlines()]
    kept = [row for row in lines if row["url"] not in {web.url(GOOD[0]), web.url(GOOD[15])}]
    kept[4]["caption"] = "said in another way"
    kept.insert(3, {"url": web.url(GOOD[20])})
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, kept)))
    dataset, _, shards = ingested(path)
    assert [shard.rows for shard in shards] == [9, 9, 1]
    assert {seen.path for seen in web.requests if "picture" in seen.path} == {GOOD[20]}
    assert not [seen for seen in web.requests if seen.path == "/status/404"], "a permanent failure stays one"
    assert sorted(row["url"] for row in rows(dataset, shards, "samples")) == sorted(
        row["url"] for row in kept if "404" not in row["url"]
    )
    assert len(rows(dataset, shards, "fetches")) == len(kept)
    assert "said in another way" in {row["text"] for row in rows(dataset, shards, "captions")}


def test_what_was_withdrawn_is_not_asked_for_again(tmp_path: Path, web: HostileWeb) -> None:
    from vlmdata.forgetting.forget import forget
    from vlmdata.forgetting.who import Asked

    path = written(tmp_path, web, GOOD[:5])
    dataset, _, _ = ingested(path)
    web.requests.clear()
    receipt = forget(dataset, Asked.of([], [web.url(GOOD[1])], [], []))
    assert receipt.samples == 1
    _, _, shards = ingested(path)
    assert web.requests == []
    ends = [("kept" if row["outcome"] == "kept" else row["code"]) for row in rows(dataset, shards, "fetches")]
    assert sorted(ends) == ["forgotten", *["kept"] * 4]
    host = urlsplit(web.url("/")).hostname or ""
    forget(dataset, Asked.of([], [], [host], []))
    with (tmp_path / "list.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"url": web.url(GOOD[20])}))
    _, _, shards = ingested(path)
    assert web.requests == []
    assert rows(dataset, shards, "samples") == []
    assert [row["code"] for row in rows(dataset, shards, "rejects")] == ["forgotten"] * 6
    assert host not in str(rows(dataset, shards, "rejects"))
    told = rows(dataset, shards, "fetches")
    assert [(row["code"], row["attempts"]) for row in told] == [("forgotten", 0)] * 6
    assert host not in str(told)


def test_a_tombstone_says_nothing_of_the_address_that_it_stands_for(tmp_path: Path, web: HostileWeb) -> None:
    from vlmdata.forgetting.forget import as_lines, forget
    from vlmdata.forgetting.who import Asked

    path = written(tmp_path, web, GOOD[:5])
    said = "Aunt Clara at the lake."
    listed = [{"url": web.url(each), "caption": said, "by": "a stranger"} for each in GOOD[:5]]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, listed)))
    dataset, _, shards = ingested(path)
    assert [row["text"] for row in rows(dataset, shards, "captions")] == [said] * 5
    asked = [Asked.of([], [web.url(GOOD[1])], [], []), Asked.of([], [], [web.host], [])]
    receipts = [forget(dataset, each) for each in asked]
    assert [receipt.samples for receipt in receipts] == [1, 4]
    folder = Path(dataset.store.locate(forgotten_prefix(dataset.name)))
    told = {path.name: path.read_text() for path in folder.iterdir()}
    assert len(told) == 4, "a tombstone and a receipt of each"
    told |= {f"receipt {each.number}": "\n".join([repr(each), *as_lines(each)]) for each in receipts}
    marks = [*(part for each in GOOD[:5] for part in (web.url(each), Path(each).name)), web.host, said, "stranger"]
    assert [(name, mark) for name, text in told.items() for mark in marks if mark in text] == []


def test_what_was_withdrawn_by_its_bytes_is_so_in_every_table(tmp_path: Path, web: HostileWeb) -> None:
    from vlmdata.forgetting.forget import forget
    from vlmdata.forgetting.who import Asked

    path = written(tmp_path, web, GOOD[:3])
    config = load_config(path)
    dataset = Dataset(config.store, config.dataset)
    forget(dataset, Asked.of([], [], [], [sha256(picture(1)).hexdigest()]))
    _, _, shards = ingested(path)
    assert [row["code"] for row in rows(dataset, shards, "fetches")] == [None, "forgotten", None]
    assert web.url(GOOD[1]) in str(rows(dataset, shards, "fetches")), "of the address nobody has said anything yet"
    forget(dataset, Asked.of([], [web.url(GOOD[1])], [], []))
    for table in ("fetches", "rejects"):
        told = str([row for each in manifests(dataset, Step.RAW).values() for row in table_of(dataset, each, table)])
        assert web.url(GOOD[1]) not in told and "forgotten:" in told


def table_of(dataset: Dataset, manifest: Manifest, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dataset.table(manifest.tables[table]).to_pylist()
    return found


def test_what_a_kill_leaves_is_gone_on_with(tmp_path: Path, web: HostileWeb) -> None:
    paths = [*GOOD[:10], *[f"/slow/100/{number}.jpg" for number in range(10, 20)], "/silent"]
    path = written(tmp_path, web, paths, network={"timeout_s": 60, "first_byte_timeout_s": 60})
    script = "import sys; from tests.integration.test_url_source import ingested, Path; ingested(Path(sys.argv[1]))"
    killed = Forked([sys.executable, "-c", script, str(path)])
    while not any(seen.path == "/silent" for seen in web.requests):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    web.requests.clear()
    web.pictures["/silent"] = picture(99)
    dataset, _, shards = ingested(path)
    assert len(rows(dataset, shards, "samples")) == 21
    # Two shards were whole.
    assert {seen.path for seen in web.requests if not seen.path.endswith((".txt", ".json"))} == {"/silent"}
    assert not list(Path(dataset.store_url).rglob(".part-*.parquet"))


def test_a_picture_that_opted_out_later_goes_from_the_next_stage(tmp_path: Path, web: HostileWeb) -> None:
    from vlmdata.here import filter_here

    (tmp_path / "left.txt").write_text("# nobody yet\n")
    path = written(tmp_path, web, GOOD[:5], opt_out="left.txt", filter={"min_side": 16})
    config = load_config(path)
    dataset = Dataset(config.store, config.dataset)
    assert sum(dataset.manifest(shard, Step.FILTERED).samples.kept for shard in filter_here(dataset, config)) == 5
    web.requests.clear()
    (tmp_path / "left.txt").write_text(f"{web.url(GOOD[1])}\nsha256:{sha256(picture(3)).hexdigest()}\n")
    shards = filter_here(dataset, config)
    rejects = [row for shard in shards for row in dataset.read(shard, Step.FILTERED, "rejects").to_pylist()]
    assert sorted((row["key"], row["code"]) for row in rejects) == [
        (web.url(GOOD[1]), "opted_out"),
        (web.url(GOOD[3]), "opted_out"),
    ]
    assert not web.requests


def test_a_picture_that_looks_like_one_that_opted_out_goes_whatever_lies_beside_it(
    tmp_path: Path, web: HostileWeb
) -> None:
    from vlmdata.here import filter_here

    (tmp_path / "left.txt").write_text("# nobody yet\n")
    web.pictures["/broken.jpg"] = picture(9)[:300]
    path = written(tmp_path, web, [*GOOD[:5], "/broken.jpg"], opt_out="left.txt", filter={"min_side": 16})
    config = load_config(path)
    dataset = Dataset(config.store, config.dataset)
    [shard] = filter_here(dataset, config)
    known = dataset.read(shard, Step.FILTERED, "samples", ["key", "phash"]).to_pylist()
    phashes = {row["key"]: row["phash"] for row in known}
    assert len(phashes) == 5
    within, beyond = 2**config.dedup.max_distance - 1, 2 ** (config.dedup.max_distance + 1) - 1
    listed = [phashes[web.url(GOOD[1])] ^ within << 30, phashes[web.url(GOOD[3])] ^ beyond << 30]
    (tmp_path / "left.txt").write_text("".join(f"phash:{phash:016x}\n" for phash in listed))
    [shard] = filter_here(dataset, config)
    rejects = dataset.read(shard, Step.FILTERED, "rejects").to_pylist()
    assert {row["key"]: row["code"] for row in rejects if row["code"] == "opted_out"} == {web.url(GOOD[1]): "opted_out"}
    assert len(rejects) == 2 and dataset.manifest(shard, Step.FILTERED).samples.kept == 4


def test_the_command_tells_and_retries(tmp_path: Path, web: HostileWeb, server: PrefectServer) -> None:
    path = written(tmp_path, web, [*GOOD[:12], "/flaky/1/50.jpg", "/status/404"], filter={"min_side": 16})

    def said(*words: str) -> tuple[int, str]:
        done = run(vlmdata(*words), environment(), cwd=tmp_path)
        assert "Traceback" not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    code, told = said("build", str(path), "--to", "00_raw")
    assert code == 4 and "http_404" in told and "http_503" in told
    place = ["--store", str(tmp_path / "store"), "--dataset", "web"]
    code, told = said("failures", *place, "--stage", "00_raw")
    assert code == 0 and re.search(r"transient .* 503 ", told) and re.search(r"permanent .* 404 ", told)
    web.requests.clear()
    code, told = said("retry", *place, "--stage", "00_raw", "--class", "transient")
    assert code == 0, told
    assert {seen.path for seen in web.requests if seen.path.endswith("jpg")} == {"/flaky/1/50.jpg"}
    code, told = said("explain", web.url("/flaky/1/50.jpg"), *place)
    assert code == 0 and "etag" in told and "attempts 1" in told


def test_a_list_that_cannot_be_used_is_said_before_anything_is_asked(tmp_path: Path, web: HostileWeb) -> None:
    (tmp_path / "list.csv").write_text(f"address,caption\n{web.url('/picture/1.jpg')},x\n")
    config = parse_config(
        {
            "dataset": "d",
            "store": str(tmp_path / "store"),
            "source": {"kind": "urls", "path": str(tmp_path / "list.csv")},
        }
    )
    with pytest.raises(SourceError, match=r"source.url_column = 'url' is not one of its columns: address, caption"):
        list_source(Dataset(config.store, "d"), config)
    assert not web.requests
