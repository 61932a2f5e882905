"""Shards tried by processes of which one may be killed: what it had is tried again, and costs no other shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

from vlmdata.checkpoint import Shard

Ended = State[Any] | None
"""How a shard's task ended; None: it did not, for its process was killed, or there was no use in trying."""


def outcomes(
    runner: TaskRunner[Any], task: Task[..., Shard], shards: Sequence[Shard], given: Mapping[str, Any], workers: int
) -> Iterator[tuple[Shard, Ended]]:
    """How the task ended for each shard, in any order.

    Prefect's own tries are made in the process that works, so they end with it, and with one process goes the
    whole pool. (Ray starts another by itself.) Whoever was killed is among those that were begun: these are tried
    alone, one after another, as often as the task may be, and what had only been queued goes on beside each other.
    Where nobody has come to an end yet, and the last of the queue dies alone, too, no process lives here: the others
    are not tried.

    Args:
        given: What the task is called with besides its shard.
        workers: Processes of the pool.
    """
    waiting, lived = list(shards), False
    while waiting:
        broken = list[Shard]()
        for shard, ended in _tried(runner, task, waiting, given):
            if ended is None:
                broken.append(shard)
            else:
                lived = True
                yield shard, ended
        if broken:
            _renew(runner)
        # As many again may have been handed over, in any order.
        begun, waiting = broken[: 2 * workers + 1], broken[2 * workers + 1 :]
        for shard in begun:
            ended = _alone(runner, task, shard, given)
            lived = lived or ended is not None
            yield shard, ended
        if waiting and not lived:
            last = waiting.pop()
            ended = _alone(runner, task, last, given)
            lived = ended is not None
            yield last, ended
            if not lived:
                yield from ((shard, None) for shard in waiting)
                return


def _alone(runner: TaskRunner[Any], task: Task[..., Shard], shard: Shard, given: Mapping[str, Any]) -> Ended:
    for _ in range(max(1, task.retries)):
        [(_, ended)] = _tried(runner, task, [shard], given)
        if ended is not None:
            return ended
        _renew(runner)
    return None


def _tried(
    runner: TaskRunner[Any], task: Task[..., Shard], shards: Sequence[Shard], given: Mapping[str, Any]
) -> Iterator[tuple[Shard, Ended]]:
    futures = [runner.submit(task, {"shard": shard, **given}) for shard in shards]
    for shard, future in zip(shards, futures, strict=True):
        yield shard, _ended(future)


def _ended(future: PrefectFuture[Any]) -> Ended:
    try:
        future.wait()
    except BrokenExecutor:
        return None
    return future.state


def let_go(runner: TaskRunner[Any]) -> None:
    """Have a pool's end wait for no lock: a process that was killed may have held that of its messages' queue."""
    messages = getattr(runner, "_subprocess_message_queue", None)
    if messages is not None:
        messages.cancel_join_thread()


def _renew(runner: TaskRunner[Any]) -> None:
    """Another pool in the place of the one that broke."""
    let_go(runner)
    runner.__exit__(None, None, None)
    runner.__enter__()
