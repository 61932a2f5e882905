"""Which captions are exported: no sample loses its last, none is unaccounted for, and the card says what came of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.checkpoint import Counts, Dataset, Result, Shard, publish, step_key
from vlmdata.config import CaptionMix, ExportConfig, PixelsConfig
from vlmdata.export.finish import finish_export
from vlmdata.export.mix import draws, mixed, word_counts
from vlmdata.export.plan import export_key, export_settings, plan_export
from vlmdata.export.rows import with_captions
from vlmdata.export.shards import export_shard
from vlmdata.export.tallies import added_up, quantile
from vlmdata.layout import Step, export_prefix
from vlmdata.schema import CAPTION_REJECTS, CAPTIONS, caption_table

Cut = Callable[..., tuple[Dataset, list[Shard]]]
Source = Callable[[int], dict[str, bytes]]

ORIGINS = ["source", "duplicate:00ff", "model:vlm", "model:other"]


def captions_of(rows: list[tuple[str, int, str]]) -> pa.Table:
    """Captions of (sample, words, origin), each text unique."""
    ids, words, origins = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    texts = [" ".join([f"w{place}"] * count) for place, count in enumerate(words)]
    return caption_table(ids, texts, [None] * len(ids), origins)


ROWS = st.lists(
    st.tuples(st.sampled_from([f"{n:032x}" for n in range(6)]), st.integers(0, 8), st.sampled_from(ORIGINS)),
    max_size=30,
)
MIXES = st.builds(
    CaptionMix,
    synthetic_share=st.none() | st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
    min_words=st.integers(0, 6),
    max_words=st.none() | st.integers(1, 8),
)


def is_model(row: dict[str, Any]) -> bool:
    return str(row["origin"]).startswith("model:")


@given(rows=ROWS, mix=MIXES)
def test_every_caption_is_kept_or_rejected_and_no_sample_loses_its_last(
    rows: list[tuple[str, int, str]], mix: CaptionMix
) -> None:
    captions = captions_of(rows)
    kept, rejects = mixed(captions, mix)
    assert rejects.schema == CAPTION_REJECTS and set(rejects["outcome"].to_pylist()) <= {"rejected"}
    everything = Counter(map(str, captions.to_pylist()))
    assert everything == Counter(map(str, kept.to_pylist() + rejects.select(CAPTIONS.names).to_pylist()))
    assert set(kept["id"].to_pylist()) == set(captions["id"].to_pylist())


@given(rows=ROWS, mix=MIXES)
def test_the_rules_caption_by_caption(rows: list[tuple[str, int, str]], mix: CaptionMix) -> None:
    """The same decision, written the slow way."""
    captions = captions_of(rows)
    kept, rejects = mixed(captions, mix)
    expected: dict[str, list[Any]] = {"kept": [], "length": [], "mix": []}
    draw = {s: draws(pa.array([s]))[0] for s in captions["id"].to_pylist()}
    most = mix.max_words or float("inf")
    for row in captions.to_pylist():
        mine = [one for one in captions.to_pylist() if one["id"] == row["id"]]
        fitting = [one for one in mine if mix.min_words <= len(one["text"].split()) <= most] or mine
        both = len({is_model(one) for one in fitting}) == 2
        wanted = mix.synthetic_share is not None and both and is_model(row) != (draw[row["id"]] < mix.synthetic_share)
        expected["length" if row not in fitting else "mix" if wanted else "kept"].append(row)
    found = {code: rejects.filter(pc.equal(rejects["code"], code)) for code in ("length", "mix")}
    assert kept.to_pylist() == expected["kept"]
    for code, table in found.items():
        assert table.select(CAPTIONS.names).to_pylist() == expected[code]


def test_rejects_say_what_was_measured_and_what_it_was_held_against() -> None:
    captions = captions_of([("a", 1, "source"), ("a", 9, "source"), ("a", 4, "source"), ("a", 5, "model:vlm")])
    _, rejects = mixed(captions, CaptionMix(min_words=2, max_words=8, synthetic_share=1))
    told = [(row["code"], row["value"], row["bound"]) for row in rejects.to_pylist()]
    assert told == [("length", 1, 2), ("length", 9, 8), ("mix", draws(pa.array(["a"]))[0], 1)]


def test_the_default_leaves_nothing_out() -> None:
    captions = captions_of([("a", 0, "source"), ("a", 900, "model:vlm")])
    kept, rejects = mixed(captions, CaptionMix())
    assert kept.equals(captions) and rejects.num_rows == 0


def test_a_draw_is_the_sample_s_own_and_falls_evenly() -> None:
    ids = [sha256(str(n).encode()).hexdigest()[:32] for n in range(4_000)]
    all_at_once = draws(pa.array(ids))
    assert (draws(pa.array(ids[::-1]))[::-1] == all_at_once).all()
    assert all_at_once.min() >= 0 and all_at_once.max() < 1
    for share in (0.1, 0.5, 0.7):
        spread = 4 * (share * (1 - share) / len(ids)) ** 0.5
        assert abs((all_at_once < share).mean() - share) < spread
    # Not the id's own beginning, which other choices go by.
    own = np.array([int(one[:8], 16) / 2**32 for one in ids])
    assert abs(np.corrcoef(own, all_at_once)[0, 1]) < 4 / len(ids) ** 0.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("  \n\t ", 0),
        ("a dog", 2),
        (" A  dog\u00a0runs,\u3000fast! ", 4),
        ("don't re-use 3.5 m", 4),
        ("- a dog – … !", 2),
        ("一只狗在跑。", 5),
        ("犬が公園を走る", 7),
        ("コーヒー", 4),
        ("USB接口", 3),
        ("개가 공원에서 달린다", 3),
        ("कुत्ता दौड़ता है", 3),
    ],
)
def test_words(text: str, words: int) -> None:
    assert word_counts(pa.chunked_array([[text]])).to_pylist() == [words]


@given(values=st.lists(st.integers(0, 40), min_size=1), share=st.sampled_from([0.05, 0.5, 0.95, 1.0]))
def test_quantiles_of_counts_are_those_of_the_values(values: list[int], share: float) -> None:
    counted: Counter[str | None] = Counter(map(str, values))
    assert quantile(counted, share) == np.quantile(values, share, method="inverted_cdf")


def test_no_quantile_of_nothing() -> None:
    assert quantile(Counter(), 0.5) is None


def test_only_a_mix_that_is_set_names_another_export() -> None:
    bare = export_key(b"rows", ExportConfig())
    assert bare == step_key(
        Step.FINAL,
        [sha256(b"rows").hexdigest()],
        {"formats": ["parquet", "webdataset"], "jpeg_quality": 95, "samples_per_shard": 1000},
    )
    assert export_key(b"rows", ExportConfig(captions=CaptionMix(max_words=None))) == bare
    others = [CaptionMix(synthetic_share=0), CaptionMix(min_words=1), CaptionMix(max_words=9)]
    assert len({bare, *(export_key(b"rows", ExportConfig(captions=mix)) for mix in others)}) == 4
    assert export_settings(ExportConfig(captions=others[0]))["captions"]["synthetic_share"] == 0


def test_only_pixels_that_are_asked_for_name_another_export() -> None:
    bare = export_key(b"rows", ExportConfig())
    same = [PixelsConfig(), PixelsConfig(formats=("webp", "png", "jpg")), PixelsConfig(color="white")]
    assert {export_key(b"rows", ExportConfig(pixels=pixels)) for pixels in same} == {bare}
    square = PixelsConfig(mode="pad", side=64)
    others = [
        *[PixelsConfig(formats=("jpg",)), PixelsConfig(encode_as="png")],
        *[PixelsConfig(mode="resize", side=side, by=by) for side in (64, 65) for by in ("longest", "shorter")],
        *[square, square.model_copy(update={"position": "top"}), square.model_copy(update={"color": "#000000"})],
        square.model_copy(update={"interpolation": "box"}),
    ]
    keys = {export_key(b"rows", ExportConfig(pixels=pixels)) for pixels in others}
    assert len(keys | {bare}) == len(others) + 1
    assert export_settings(ExportConfig(pixels=square))["pixels"]["interpolation"] == "lanczos"


def test_the_best_score_is_of_a_caption_that_is_there(exported: Any) -> None:
    rows, _ = exported(3)
    samples = rows.drop_columns(["caption", "captions"])
    scores = pa.array([0.3, 0.2, None], pa.float32())
    spoken = caption_table(samples["id"].to_pylist(), ["a", "b", "c"], [None] * 3, ["source"] * 3)
    spoken = spoken.append_column("score", scores).append_column("model", pa.array(["m"] * 3))
    spoken = spoken.append_column("printed_text", pa.nulls(3, pa.bool_()))
    found = with_captions(samples, spoken.slice(1))
    assert found["best_score"].to_pylist() == pa.array([0.35, 0.2, 0.35], pa.float32()).to_pylist()
    assert found["caption"].to_pylist() == [None, "b", "c"]


LONG = "a long description of all that there is to see in it"


def in_both_kinds(dataset: Dataset, shard: Shard) -> Shard:
    """The shard with its better captions written by a model, and a third, long one for each sample."""
    given_ = dataset.read(shard, Step.CHECKED, "captions")
    better = pc.match_substring(given_["text"], "better")
    origin = pc.if_else(better, "model:vlm|alt-text@1", "source")
    given_ = given_.set_column(given_.column_names.index("origin"), given_.field("origin"), origin)
    long = given_.filter(better).set_column(2, given_.field("text"), pa.array([LONG] * int(pc.sum(better).as_py())))
    captions = pa.concat_tables([given_, long])
    samples = dataset.read(shard, Step.CHECKED, "samples")
    n, m = samples.num_rows, captions.num_rows
    made = Result({"samples": samples, "captions": captions}, Counts(came=n, kept=n), Counts(came=m, kept=m))
    key = step_key(Step.CHECKED, ["both kinds", *samples["id"].to_pylist()], {})
    return shard.at(Step.CHECKED, publish(dataset, shard.name, Step.CHECKED, key, made))


def build(dataset: Dataset, shards: list[Shard], config: ExportConfig) -> tuple[list[Shard], Path]:
    planned = plan_export(dataset, [in_both_kinds(dataset, shard) for shard in shards], config)
    done = [export_shard(dataset, shard, config) for shard in planned]
    finish_export(dataset, done, config, {})
    key = dataset.manifest(done[0], Step.FINAL).facts["export"]
    return done, Path(dataset.store.locate(export_prefix(dataset.name, key)))


def test_an_export_of_a_mix_adds_up_and_its_card_says_so(source: Source, cut: Cut) -> None:
    mix = CaptionMix(synthetic_share=0.5, max_words=8)
    config = ExportConfig(samples_per_shard=8, captions=mix)
    dataset, shards = cut(source(20), 7)
    done, folder = build(dataset, shards, config)
    accounts = [dataset.manifest(shard, Step.FINAL) for shard in done]
    captions = sum((one.captions for one in accounts), Counts())
    assert captions == Counts(came=60, kept=20, rejected=40)
    assert sum((Counter(one.caption_reasons) for one in accounts), Counter()) == {"length": 20, "mix": 20}
    captions.check("the export's captions")

    ids = sorted(row["id"] for shard in done for row in dataset.read(shard, Step.FINAL, "samples").to_pylist())
    synthetic = int((draws(pa.array(ids)) < 0.5).sum())
    assert 0 < synthetic < 20
    tallies = added_up(dataset.table(one.tables["tallies"]) for one in accounts)
    assert tallies["origin"] == {"source": 20 - synthetic, "model:vlm|alt-text@1": synthetic}
    assert tallies["drawn"] == {"original": 20 - synthetic, "synthetic": synthetic}

    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert manifest["captions"] == 20 and manifest["settings"]["captions"] == mix.settings()
    card = (folder / "README.md").read_text()
    assert "50 % with a model's alone" in card and "captions of at most 8 words" in card
    assert f"a model's for {synthetic:,} ({5 * synthetic:.1f} %) of 20 such pictures; 20 captions" in card
    assert f"| original | {20 - synthetic} | {100 - 5 * synthetic:.1f} |" in card
    assert f"| `model:vlm` | {synthetic} | {5 * synthetic:.1f} |" in card
    assert "Words a caption: median 4, p5 4, p95 4." in card


def test_the_card_of_a_length_alone_speaks_of_no_draw(source: Source, cut: Cut) -> None:
    dataset, shards = cut(source(4), 4)
    _, folder = build(dataset, shards, ExportConfig(captions=CaptionMix(min_words=5)))
    card = (folder / "README.md").read_text()
    assert "captions of at least 5 words, for pictures that have one; 8 captions are left out" in card
    assert "both kinds" not in card


def test_the_draw_does_not_depend_on_how_the_source_was_cut(source: Source, cut: Cut) -> None:
    config = ExportConfig(samples_per_shard=4, captions=CaptionMix(synthetic_share=0.4))
    trees = []
    for size in (3, 10):
        dataset, shards = cut(source(10), size, f"store{size}")
        _, folder = build(dataset, shards, config)
        files = (path for path in folder.rglob("*") if path.is_file())
        trees.append({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})
    assert trees[0] == trees[1] and len(trees[0]) == 10


def test_no_mix_no_word_of_it(source: Source, cut: Cut) -> None:
    dataset, shards = cut(source(4), 4)
    done, folder = build(dataset, shards, ExportConfig())
    manifest = dataset.manifest(done[0], Step.FINAL)
    assert manifest.captions == Counts(came=12, kept=12) and manifest.caption_reasons == {}
    assert "captions" not in json.loads((folder / "MANIFEST.json").read_text())["settings"]
    assert "Caption mix" not in (folder / "README.md").read_text()


def test_a_failed_sample_s_captions_are_counted_once(source: Source, cut: Cut) -> None:
    pictures = source(6)
    pictures[next(iter(pictures))] = b"no picture"
    dataset, shards = cut(pictures, 6)
    done, _ = build(dataset, shards, ExportConfig(captions=CaptionMix(synthetic_share=1, max_words=8)))
    manifest = dataset.manifest(done[0], Step.FINAL)
    assert manifest.captions == Counts(came=18, kept=5, rejected=10, failed=3)
    assert manifest.caption_reasons == {"length": 5, "mix": 5, "sample_failed": 3}
