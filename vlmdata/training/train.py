"""`vlmdata train`: everything that is known before the first step, then the steps, then what is told of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdata.errors import ConfigError
from vlmdata.store import LocalStore
from vlmdata.training.alignment import check_alignment
from vlmdata.training.batch import Batch, batch_of
from vlmdata.training.card import write_card
from vlmdata.training.config import TrainConfig
from vlmdata.training.curves import draw_curves
from vlmdata.training.loading import Pairs, workers_for
from vlmdata.training.log import Log, Silent, Tracker, check_trackers, open_trackers, read_warnings
from vlmdata.training.samples import TRAIN, VALIDATION, Samples, open_samples
from vlmdata.training.schedule import Stage, require_learning_vision, stages_of
from vlmdata.training.story import check_precision, check_same, put_story, read_story, story_of
from vlmdata.training.transforms import check_preprocessing, learning, measuring

if TYPE_CHECKING:
    from vlmdata.training.engine.devices import Place
    from vlmdata.training.engine.loop import Training
    from vlmdata.training.engine.models import Learner


def train(config: TrainConfig, title: str = "train") -> dict[str, Any]:
    """Train as the config says, from the newest checkpoint in `out` if there is one; returns run.json.

    Args:
        title: What its progress is told under.

    Raises:
        UserError: the config, the data, the model or `out` cannot be used; one line says what to change.
        Diverged: the loss is no number any more.
    """
    from vlmdata.training.engine.devices import place

    check(config)
    with place(config.device) as here:
        return _train(config, here, title)


def check(config: TrainConfig) -> None:
    """All that needs neither data nor model.

    Raises:
        ConfigError: it cannot work.
    """
    check_trackers(config.trackers)
    batch_of(config, int(os.environ.get("WORLD_SIZE", "1")))
    if "://" in config.out:
        raise ConfigError(f"out = {config.out!r}: expected a folder of this machine; copy it when the training is done")
    LocalStore(config.out, "out").check(create=False)


def _train(config: TrainConfig, here: Place, title: str) -> dict[str, Any]:
    from vlmdata.training.engine.models import learner
    from vlmdata.training.engine.pair import hide_features

    batch = batch_of(config, here.devices)
    learned = learner(config)
    if config.projection_dropout:
        require_learning_vision(config, from_scratch=learned.from_scratch)
        hide_features(learned.parts.model, config.projection_dropout)
    check_preprocessing(config, learned.parts.preprocess)
    samples, before = _opened(config, here)
    stages = stages_of(config, len(samples.rows(TRAIN)), batch.effective, from_scratch=learned.from_scratch)
    check_same(before, config, samples)
    if before and before["batch"]["effective"] != batch.effective:
        raise ConfigError(
            f"out = {config.out!r}: was trained with an effective batch of {before['batch']['effective']}, and this"
            f" would be {batch.effective}; set effective_batch, or give another out"
        )
    return _run(config, here, batch, learned, samples, stages, before, title)


def _opened(config: TrainConfig, here: Place) -> tuple[Samples, dict[str, Any] | None]:
    """Indexed by the first, read by all; and run.json, as the first found it."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    failure: Exception | None = None
    samples: Samples | None = None
    before: dict[str, Any] | None = None
    if here.first:
        try:
            samples, before = open_samples(config, out), read_story(out)
        except Exception as error:  # told to the others, who would wait for ever
            failure = error
    failure, before = here.all_of((failure, before))[0]
    if failure is not None:
        raise failure
    return samples or open_samples(config, out), before


def _run(
    config: TrainConfig,
    here: Place,
    batch: Batch,
    learned: Learner,
    samples: Samples,
    stages: list[Stage],
    before: Any,
    title: str,
) -> dict[str, Any]:
    from vlmdata.training.engine.checkpoints import checkpoints, load_state
    from vlmdata.training.engine.devices import hardware, precision_on
    from vlmdata.training.engine.loop import Training
    from vlmdata.training.engine.pair import Pair

    out = Path(config.out)
    pairs = _pairs(config, learned, samples)
    aligned = check_alignment(config, pairs) if here.first and before is None and samples.manifest is None else None
    precision, why = precision_on(here.device, config.precision)
    check_precision(before, config, precision, why)
    story = story_of(
        config,
        samples,
        batch=batch.as_dict(),
        precision=precision,
        hardware=hardware(here.device),
        before=before,
        stages=[str(stage) for stage in stages],
    )
    there = checkpoints(out)
    step = int(load_state(there[-1])["step"]) if there else 0
    trackers: list[Tracker] = open_trackers(config.trackers, out, step, story) if here.first else []
    log = Log(out, step, trackers) if here.first else Silent()
    low = precision == "bf16"
    pair = Pair(learned.parts.model, low_precision=low, device=here.device, biased=config.loss == "siglip")
    pair = pair.to(here.device)
    training = Training(config, here, batch, stages, learned, pair, pairs, log, story["run"], title)
    try:
        if here.first:
            # What is done stays on record as it is, until it is told again whole.
            if not (before and before.get("finished")):
                put_story(out, {**story, "finished": False})
            for sentence in _first_sentences(config, samples, batch, training, precision, why, step):
                log.say(sentence)
            if aligned:
                log.say(aligned)
        training.finish()
        story |= {
            "finished": True,
            "steps": training.steps,
            "evaluations": training.evaluations,
            "warnings": read_warnings(out),
        }
        if here.first:
            _tell(out, story, training)
        here.barrier()
        return story
    finally:
        log.close()


def _tell(out: Path, story: dict[str, Any], training: Training) -> None:
    """Model, curves and card of a training that is done, and run.json, which names them."""
    from vlmdata.training.engine.loop import as_sentence, finished_model

    story["model"] = str(finished_model(training))
    curves = draw_curves(out)
    story["curves"] = curves.name if curves else None
    write_card(out, story)
    put_story(out, story)
    training.log.say(f"done: {as_sentence(training.evaluations[-1])}")


def _pairs(config: TrainConfig, learned: Learner, samples: Samples) -> Pairs:
    preprocess = learned.parts.preprocess
    plain = learning(preprocess, config.crop_scale, flip=False)
    flipping = learning(preprocess, config.crop_scale, flip=config.flip)
    return Pairs(samples, measuring(preprocess), plain, flipping, learned.parts.tokenizer, config.seed)


def _first_sentences(
    config: TrainConfig, samples: Samples, batch: Batch, training: Training, precision: str, why: str, step: int
) -> list[str]:
    train_rows, held = len(samples.rows(TRAIN)), len(samples.rows(VALIDATION))
    left = train_rows - training.steps_a_pass * batch.effective
    by = (
        f"by a hash of the sample's id, {config.validation_share:g} of all"
        if samples.held_out
        else "as the export splits it"
    )
    said = [
        f"goes on after step {step}" if step else f"begins: {config.model}, seed {config.seed}",
        f"data: {train_rows:,} pairs to train on, {held:,} to measure with, {by}",
        f"left out: {samples.left_out or 'none'}",
        f"batch: {batch}; {left:,} pairs of each pass over the data are left over, others each time",
        f"precision: {precision} ({why}); similarity matrix and loss in fp32",
        f"loss: {config.loss}; logit_scale is kept at 100 or below",
        f"read by {workers_for(config.workers)} processes",
    ]
    said += [f"Warning: {stage.doubt}" for stage in training.stages if stage.doubt]
    if config.projection_dropout:
        said.append(f"the vision projection learns with {config.projection_dropout:g} of its features hidden")
    if config.flip and samples.sided:
        said.append(f"flip: off for {samples.sided:,} pairs, whose captions say left or right")
    return said
