"""A training from its config to its end: stages, steps, checkpoints, evaluations."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vlmdata import progress
from vlmdata.errors import Diverged
from vlmdata.training.batch import Batch
from vlmdata.training.config import TrainConfig
from vlmdata.training.engine import checkpoints
from vlmdata.training.engine.devices import Place
from vlmdata.training.engine.evaluation import evaluate
from vlmdata.training.engine.losses import loss_of
from vlmdata.training.engine.memory import checkpoint_gradients
from vlmdata.training.engine.models import Learner, fill, load_weights, save_folder, state_of
from vlmdata.training.engine.pair import TEXT, VISION, Frozen, Pair, let_learn, set_modes
from vlmdata.training.engine.step import Stepper, bounded_scale, optimizer_for
from vlmdata.training.loading import Key, Loaded, Pairs, load, workers_for
from vlmdata.training.log import Log, read_figures
from vlmdata.training.order import batches, part_of
from vlmdata.training.samples import TRAIN, VALIDATION
from vlmdata.training.schedule import Stage

_SMOOTH = 20
"""Steps over which the imbalance of the two losses is looked at."""


@dataclass
class Training:
    """A training under way.

    Attributes:
        pair: the model.
        title: what its progress is told under.
        step: steps that are done.
        evaluations: so far, newest last.
    """

    config: TrainConfig
    place: Place
    batch: Batch
    stages: list[Stage]
    learner: Learner
    pair: Pair
    pairs: Pairs
    log: Log
    run: str
    title: str
    step: int = 0
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    _warned: bool = False

    @property
    def out(self) -> Path:
        """Its folder."""
        return Path(self.config.out)

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.stages[-1].end

    @property
    def steps_an_epoch(self) -> int:
        """Steps after which it is measured."""
        return self.stages[0].steps // self.stages[0].epochs

    @property
    def steps_a_pass(self) -> int:
        """Whole batches that the train split holds."""
        return len(self.pairs.samples.rows(TRAIN)) // self.batch.effective

    def finish(self) -> None:
        """All stages, from where it stands.

        Raises:
            Diverged: the loss is no number.
            BrokenInvariant: something that was frozen changed.
        """
        resumed = self._restored()
        for stage in self.stages:
            if self.step < stage.end:
                self._stage(stage, resumed if self.step > stage.first_step else None)

    def _restored(self) -> dict[str, Any] | None:
        found = checkpoints.checkpoints(self.out)
        if not found:
            return None
        state = checkpoints.load_state(found[-1])
        if self.learner.adapters:
            fill(self.learner.parts.model, state.get("with_adapters", {}), found[-1])
        else:
            load_weights(self.learner.parts.model, found[-1])
        self.step, self.evaluations = int(state["step"]), list(state["evaluations"])
        self._warned = bool(state.get("warned"))
        return state

    def _stage(self, stage: Stage, resumed: dict[str, Any] | None) -> None:
        model = self.learner.parts.model
        learns = {VISION: stage.vision, TEXT: stage.text}
        let_learn(model, learns)
        fixed = set_modes(model, learns, fixed_norms=self.batch.chunks > 1 or self.batch.devices > 1)
        bounded_scale(model)
        frozen = Frozen(model)
        self._say(f"{stage}; {frozen.count} tensors frozen, {fixed} batch-norm layers with fixed statistics")
        self._say(self._memory())
        optimizer, parameters = optimizer_for(model, self.config.weight_decay)
        if resumed is not None:
            self._go_on(optimizer, resumed["optimizer"])
        stepper = Stepper(
            net=self._distributed(),
            pair=self.pair,
            loss=loss_of(self.config.loss, self.place.rank, self.place.devices),
            optimizer=optimizer,
            parameters=parameters,
            place=self.place,
            seed=self.config.seed,
            max_grad_norm=self.config.max_grad_norm,
        )
        bar = f"{self.title}, stage {stage.number} of {len(self.stages)}"
        progress.begin(bar, stage.steps * self.batch.effective)
        progress.done(bar, (self.step - stage.first_step) * self.batch.effective)
        self._steps(stage, stepper, frozen, bar)
        progress.end(bar)

    def _go_on(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        try:
            optimizer.load_state_dict(state)
        except (ValueError, KeyError, TypeError) as error:
            newest = checkpoints.checkpoints(self.out)[-1]
            raise checkpoints.unreadable(newest, checkpoints.STATE, error) from error

    def _memory(self) -> str:
        parts = self.learner.parts
        size = parts.preprocess["size"]
        return checkpoint_gradients(
            self.pair,
            self.config.gradient_checkpointing,
            self.batch.per_device,
            int(parts.tokenizer.context_length),
            size if isinstance(size, int) else size[0],
            self.place.device,
        )

    def _steps(self, stage: Stage, stepper: Stepper, frozen: Frozen, bar: str) -> None:
        loaded = self._loaded(stage)
        recent = self._recent(stage)
        started = time.perf_counter()
        while self.step < stage.end:
            chunks = [next(loaded) for _ in range(self.batch.chunks)]
            figures = self._one(stepper, chunks, stage.rate(self.step))
            self.step += 1
            seconds, started = time.perf_counter() - started, time.perf_counter()
            failed = [one for chunk in chunks for one in chunk.failed]
            self._told(stage, figures, seconds, failed)
            recent = [*recent[1 - _SMOOTH :], figures["imbalance"]]
            self._warn_of_drift(recent)
            progress.done(bar, self.batch.effective)
            progress.note(bar, f"loss {figures['loss']:.3f}")
            if self.step % self.steps_an_epoch == 0:
                frozen.verify()
                self._evaluate()
                self._save(stepper)
                started = time.perf_counter()
            elif self.step % self.config.checkpoint_every == 0:
                self._save(stepper)

    def _one(self, stepper: Stepper, chunks: list[Loaded], rate: float) -> dict[str, float]:
        try:
            return stepper.step(self.step, chunks, rate)
        except Diverged as error:
            self._say(f"step {self.step + 1} diverged on samples {' '.join(error.samples)}")
            raise

    def _loaded(self, stage: Stage) -> Iterator[Loaded]:
        workers = workers_for(self.config.workers)
        return load(self.pairs, self._keys(stage), workers, pin=self.place.device != "cpu")

    def _keys(self, stage: Stage) -> Iterator[list[Key]]:
        """What this device reads, a chunk at a time, from the step that comes next to the stage's end."""
        shards = self.pairs.samples.shards(TRAIN)
        config, batch, step = self.config, self.batch, self.step
        while step < stage.end:
            number, within = divmod(step, self.steps_a_pass)
            whole = batches(shards, config.seed, number, config.shuffle_buffer, batch.effective, within)
            for rows in islice(whole, stage.end - step):
                mine = part_of(rows, self.place.rank, batch.devices).reshape(batch.chunks, batch.per_device)
                yield from ([(number, int(row)) for row in chunk] for chunk in mine)
                step += 1

    def _distributed(self) -> Any:
        if self.place.devices == 1:
            return self.pair
        return torch.nn.parallel.DistributedDataParallel(
            self.pair,
            device_ids=None if self.place.device == "cpu" else [torch.device(self.place.device)],
            find_unused_parameters=True,
        )

    def _told(self, stage: Stage, figures: dict[str, float], seconds: float, failed: list[tuple[str, str]]) -> None:
        more = {
            "images_per_s": self.batch.effective / seconds,
            "stage": stage.number,
            "epoch": (self.step - 1) // self.steps_an_epoch,
            "failed": len(failed),
        }
        if torch.device(self.place.device).type == "cuda":
            more["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if self.place.first:
            self.log.figures(self.step, "step", {**figures, **more})
        for sample, why in failed:
            self._say(f"undecodable {sample}: {why}; the next one stood in for it")

    def _recent(self, stage: Stage) -> list[float]:
        """What a run that was broken off had seen of the stage, so that it warns as an unbroken one does."""
        if not self.place.first or self.step == stage.first_step:
            return []
        told = [line for line in read_figures(self.out) if line["kind"] == "step" and line["stage"] == stage.number]
        return [float(line["imbalance"]) for line in told[-_SMOOTH:]]

    def _warn_of_drift(self, recent: list[float]) -> None:
        mean = sum(recent) / len(recent)
        if len(recent) == _SMOOTH and mean > self.config.max_imbalance and not self._warned:
            self._warned = True
            self._say(
                f"Warning: alignment drift by step {self.step}: the losses of the two directions differ by"
                f" {mean:.0%} of their mean over {_SMOOTH} steps, more than max_imbalance ="
                f" {self.config.max_imbalance:g}"
            )

    def _evaluate(self) -> None:
        if self.place.first:
            rows = self.pairs.samples.rows(VALIDATION)
            found = evaluate(self.pair, self.pairs, rows, self.config.evaluation, self.place.device)
            told = {f"{way}_{name}": value for way, one in found.items() for name, value in _plain(one).items()}
            epoch = self.step // self.steps_an_epoch
            self.evaluations.append({"step": self.step, "epoch": epoch, **told})
            self.log.figures(self.step, "evaluation", self.evaluations[-1])
            self._say(as_sentence(self.evaluations[-1]))
        self.place.barrier()

    def _save(self, stepper: Stepper) -> None:
        if self.place.first:
            state = {
                "step": self.step,
                "run": self.run,
                "optimizer": stepper.optimizer.state_dict(),
                "evaluations": self.evaluations,
                "warned": self._warned,
            }
            model = state_of(self.learner.parts.model)
            if self.learner.adapters:
                # The model has them added in: they are learned on from as they stand.
                state["with_adapters"] = self.learner.parts.model.state_dict()
            checkpoints.save(
                self.out,
                self.step,
                state,
                lambda to: save_folder(to, self.learner, model),
                self.config.keep_checkpoints,
            )
        self.place.barrier()

    def _say(self, sentence: str) -> None:
        if self.place.first:
            self.log.say(sentence)


def _plain(recall: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(recall).items() if name != "intervals"} | {
        "r10_interval": list(recall.intervals[2])
    }


def as_sentence(evaluation: dict[str, Any]) -> str:
    """Both directions, for people."""
    ways = []
    for way in ("image_to_text", "text_to_image"):
        shares = " / ".join(f"{evaluation[f'{way}_r{k}']:.1%}" for k in (1, 5, 10))
        low, high = evaluation[f"{way}_r10_interval"]
        ways.append(f"{way.replace('_', ' ')} R@1/5/10 {shares} (R@10 between {low:.1%} and {high:.1%})")
    n = evaluation["image_to_text_n"]
    return f"epoch {evaluation['epoch']}, step {evaluation['step']}: {'; '.join(ways)}, of {n:,} pictures"


def finished_model(training: Training) -> Path:
    """The model's folder at the end: that of the last checkpoint, under a name that stays."""
    model = state_of(training.learner.parts.model)
    return checkpoints.whole(training.out / "model", lambda to: save_folder(to, training.learner, model))
