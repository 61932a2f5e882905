"""Models are loaded beside the first stages if this process will score something, and not otherwise."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmdata import preflight
from vlmdata.config import BuildConfig
from vlmdata.errors import ConfigError
from vlmdata.ingest.listing import list_source
from vlmdata.layout import Stage, Step
from vlmdata.measure import encoder
from vlmdata.measure.encoder import Encoder, load_encoder
from vlmdata.preflight import _are_scored, load_ahead
from vlmdata.quality.scores import score_shard
from vlmdata.runs import Run, start_run

STARTER = {"model": "starter", "pretrained": None, "device": "cpu"}
SHAPE: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
PATIENCE_S = 60


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Encoder]:
    """The models that this process has: none, until one is loaded."""
    nothing: dict[Any, Encoder] = {}
    monkeypatch.setattr(encoder, "_loaded", nothing)
    return nothing


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A model as open_clip saves one, with random weights, which says that it knows German."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    folder = model_folder(tmp_path / "small", "de")
    save_file(dict(CLIP(**SHAPE).state_dict()), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A model whose weights are none: that shows when they are loaded, and not before."""
    folder = model_folder(tmp_path / "broken", "en")
    (folder / "open_clip_model.safetensors").write_bytes(b"no weights")
    return folder


def model_folder(folder: Path, language: str) -> Path:
    folder.mkdir()
    said = {"model_cfg": SHAPE, "preprocess_cfg": {"size": 32}, "languages": [language]}
    (folder / "open_clip_config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


@pytest.fixture
def make(tiny: Callable[..., Any], pictures: Any) -> Callable[..., Any]:
    """A source of a few pictures, two in a shard."""

    def source(n: int = 3, **sections: Any) -> Any:
        files = {f"{seed}.png": pictures.png(seed) for seed in range(n)}
        texts = {name: [{"text": f"the picture {name}", "lang": "en"}] for name in files}
        return tiny(files, texts, **{"shard_size": 2, "quality": STARTER, **sections})

    return source


def a_run(source: Any, to: Stage) -> Run:
    """A run of the source as it is now, to a stage of the first four."""
    run, done = start_run(source.dataset, source.config), source
    steps: dict[Stage, Callable[[Any], Any]] = {
        Stage.RAW: lambda before: before.ingested(),
        Stage.FILTERED: lambda before: before.filtered(),
        Stage.CAPTIONED: lambda before: before.captioned(),
        Stage.CHECKED: lambda before: before.judged({}),
    }
    for stage, step in steps.items():
        done = step(done)
        run.stage_done(done.report(stage))
        if stage is to:
            break
    return run


def begin(source: Any, to: Stage = Stage.FINAL, config: BuildConfig | None = None) -> None:
    """The next run, as far as the models' loading."""
    config = config or source.config
    load_ahead(config, start_run(source.dataset, config), list_source(source.dataset, config), to)


def beside() -> list[threading.Thread]:
    """The threads that load."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("load-models")]


def wait() -> None:
    """Until whatever is being loaded is."""
    for thread in beside():
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("to", [Stage.CHECKED, Stage.FINAL])
def test_every_model_of_a_first_run_is_at_hand_when_it_is_asked_for(
    make: Callable[..., Any], loaded: dict[Any, Encoder], small: Path, to: Stage
) -> None:
    begin(make(quality={**STARTER, "languages": {"de": {"model": str(small)}}}), to)
    wait()
    ahead = dict(loaded)
    # As stage 03 asks for them.
    asked = [load_encoder("starter", None, "cpu"), load_encoder(str(small), None, "cpu")]
    assert [one.model for one in asked] == ["starter", str(small)]
    assert len(ahead) == 2 and loaded == ahead


def test_the_first_stages_do_not_wait_for_it(make: Callable[..., Any], loaded: dict[Any, Encoder], small: Path) -> None:
    source = make(quality={**STARTER, "model": str(small), "unlabelled_language": "de"})
    flow = threading.Thread(target=begin, args=(source,), daemon=True)
    # Nothing can be loaded while somebody else loads.
    with encoder._loading:
        flow.start()
        flow.join(PATIENCE_S)
        assert not flow.is_alive()
        [_] = beside()
        assert not loaded
    wait()
    assert [one.model for one in loaded.values()] == [str(small)]


def test_numba_is_imported_before_another_thread_imports_torch(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = "vlmdata.filtering.hamming_kernels"
    monkeypatch.delitem(sys.modules, kernels, raising=False)
    at_hand: list[bool] = []
    monkeypatch.setattr(preflight, "_load_judges", lambda config: at_hand.append(kernels in sys.modules))
    begin(make())
    wait()
    assert at_hand == [True]


@pytest.mark.parametrize("to", [Stage.RAW, Stage.FILTERED, Stage.CAPTIONED])
def test_a_run_that_ends_before_scores_loads_nothing(
    make: Callable[..., Any], loaded: dict[Any, Encoder], to: Stage
) -> None:
    begin(make(), to)
    wait()
    assert not loaded


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_where_other_processes_score_this_one_loads_nothing(
    make: Callable[..., Any], loaded: dict[Any, Encoder], engine: str
) -> None:
    begin(make(engine=engine))
    wait()
    assert not loaded


def test_what_the_run_before_has_scored_needs_no_model(make: Callable[..., Any], loaded: dict[Any, Encoder]) -> None:
    source = make()
    a_run(source, Stage.CHECKED)
    begin(source)
    wait()
    assert not loaded


def scored_by_the_run_before(source: Any) -> bool:
    return _are_scored(start_run(source.dataset, source.config), list_source(source.dataset, source.config))


def test_a_first_run_has_scored_nothing_before(make: Callable[..., Any]) -> None:
    assert not scored_by_the_run_before(make())


@pytest.mark.parametrize("to", [Stage.RAW, Stage.FILTERED, Stage.CAPTIONED, Stage.CHECKED])
def test_a_run_before_has_scored_if_it_came_so_far(make: Callable[..., Any], to: Stage) -> None:
    source = make()
    a_run(source, to)
    assert scored_by_the_run_before(source) == (to is Stage.CHECKED)


def test_one_new_shard_after_an_old_one_is_to_be_scored(make: Callable[..., Any], pictures: Any) -> None:
    source = make(2)
    known = a_run(source, Stage.CHECKED).stage(Stage.CHECKED)
    (Path(source.config.source.path) / "9.png").write_bytes(pictures.png(9))
    now = list_source(source.dataset, source.config)
    assert known is not None and known.shards[0].manifests[Step.LISTING] == now[0].manifests[Step.LISTING]
    assert not scored_by_the_run_before(source)


def test_a_shard_that_was_lost_before_it_was_scored_is_to_be_scored(make: Callable[..., Any]) -> None:
    source = make(4)
    run, done = start_run(source.dataset, source.config), source.ingested().filtered().captioned()
    done.shards.pop()
    run.stage_done(done.judged({}).report(Stage.CHECKED))
    assert not scored_by_the_run_before(source)


def test_fewer_pictures_than_were_scored_are_all_scored(make: Callable[..., Any]) -> None:
    source = make(4)
    a_run(source, Stage.CHECKED)
    run = start_run(source.dataset, source.config)
    assert _are_scored(run, list_source(source.dataset, source.config)[:1])


def test_what_fails_ahead_is_said_by_the_first_shard_that_is_scored(
    make: Callable[..., Any], loaded: dict[Any, Encoder], broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", loose.append)
    source = make(quality={**STARTER, "model": str(broken), "accept_above": 0.3, "reject_below": 0.2})
    captioned = source.ingested().filtered().captioned()

    def error() -> ConfigError:
        with pytest.raises(ConfigError) as told:
            score_shard(source.dataset, captioned.shards[0], source.config.quality)
        return told.value

    alone = error()
    begin(source)
    wait()
    ahead = error()
    assert f"folder {broken} does not load" in str(alone)
    assert (type(ahead), str(ahead)) == (type(alone), str(alone))
    assert not loaded and not loose
