"""Run a task over shards on the engine that the config names; a bad shard costs only itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import TracebackType
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.worker_processes import let_go, outcomes
from tasks.job import Job, raise_named
from vlmdata import progress
from vlmdata.captioning.watching import spending_told
from vlmdata.checkpoint import Shard
from vlmdata.config import BuildConfig
from vlmdata.errors import BuildIncomplete
from vlmdata.ingest.shards import AT_ONCE
from vlmdata.layout import Step

_WORKERS = os.cpu_count() or 1


class Engine:
    """Threads by default; processes or Ray where shards are heavy. Remembers which shards were lost."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._runner = _task_runner(job.config.engine)
        self._reader = _reader(job.config) or self._runner
        self._open = ExitStack()
        self._lost: dict[str, str] = {}

    def __enter__(self) -> Engine:
        for runner in {id(each): each for each in (self._runner, self._reader)}.values():
            self._open.enter_context(runner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        let_go(self._runner)
        self._open.__exit__(kind, error, trace)

    def each(
        self, task: Task[..., Shard], shards: Sequence[Shard], step: Step, known: Sequence[Shard] = (), **more: Any
    ) -> list[Shard]:
        """The task done for every shard, in order, less those that were lost; `more` is handed to each.

        Of the shards in `known` it is done already.

        Raises:
            VlmdataError: a shard's task said that going on makes no sense (a user's mistake, a gate).
        """
        progress.begin(step, sum(shard.rows for shard in shards))
        runner = self._reader if step is Step.RAW else self._runner
        finished = {shard.name: shard for shard in known}
        if known:
            progress.done(step, sum(shard.rows for shard in known))
        waiting = [shard for shard in shards if shard.name not in finished]
        with self._watched(step):
            for shard, state in outcomes(runner, task, waiting, {"job": self.job, **more}, _WORKERS):
                if state is None:
                    self._lost[shard.name] = f"{step}: its process was killed, for want of memory perhaps"
                    continue
                raise_named(state)
                if state.is_completed():
                    finished[shard.name] = state.result()
                    progress.done(step, shard.rows)
                else:
                    self._lost[shard.name] = f"{step}: {state.message}"
        progress.end(step)
        if not finished:
            self.require_all(f"{step} is closed")
        return [finished[shard.name] for shard in shards if shard.name in finished]

    def _watched(self, step: Step) -> AbstractContextManager[None]:
        """What captions cost is heard where they are asked for: of other processes the store has to be asked."""
        config = self.job.config
        asks = step is Step.CAPTIONED and config.caption.base_url is not None
        if not asks or config.engine == "threads" or not progress.heard():
            return nullcontext()
        return spending_told(self.job.dataset)

    def require_all(self, before: str) -> None:
        """A decision over all shards waits for all of them.

        Raises:
            BuildIncomplete: some were lost; what the others did is in the store.
        """
        if self._lost:
            name, reason = next(iter(self._lost.items()))
            what = "1 shard" if len(self._lost) == 1 else f"{len(self._lost):,} shards"
            raise BuildIncomplete(
                f"{what} lost before {before} (shard {name}: {reason}); "
                "the others are safe, run the same build again to do just these"
            )


def once(task: Task[..., Any], *args: Any) -> Any:
    """Run one task here and now.

    Raises:
        VlmdataError: the one that its failed state stands for.
    """
    state: State[Any] = task(*args, return_state=True)  # type: ignore[assignment]  # none of ours is a coroutine
    raise_named(state)
    return state.result()


def _reader(config: BuildConfig) -> TaskRunner[Any] | None:
    """What reads shards that wait for the web, which takes no processor; None: what does all else."""
    if config.source.kind == "urls" and config.engine == "threads":
        return ThreadPoolTaskRunner(max_workers=AT_ONCE)
    return None


def _task_runner(engine: str) -> TaskRunner[Any]:
    if engine == "processes":
        return ProcessPoolTaskRunner(max_workers=_WORKERS)
    if engine == "ray":
        from prefect_ray import RayTaskRunner

        # Connects to RAY_ADDRESS, or starts Ray on this machine, where nobody looks at a dashboard of one build.
        runner: TaskRunner[Any] = RayTaskRunner(init_kwargs={"include_dashboard": False})
        return runner
    return ThreadPoolTaskRunner(max_workers=_WORKERS)
