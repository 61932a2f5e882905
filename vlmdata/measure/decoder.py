"""Decode pictures in processes that can be killed: a time and a memory limit for each.

A picture that hangs or kills its decoder costs itself only. The bytes go
through an unlinked temporary file, so that nothing blocks on a stuck decoder.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import IO, Any

from vlmdata.errors import ConfigError

Picture = bytes | memoryview
"""A file's bytes."""

_WORKER = Path(__file__).with_name("decode_worker.py")
_SMALLEST_BATCH, _LARGEST_BATCH = 16, 128
"""Pictures handed to a decoder at a time: between two batches it waits, and at the end the others wait for it."""
_BREATH_S = 0.005
"""Between two looks at a decoder with many answers to come: each takes a core from a decoder for a moment."""
_START_S = 120.0
"""Patience with a decoder that starts on a busy machine."""
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "VECLIB_MAXIMUM_THREADS": "1"}
"""A decoder has one core: others decode beside it."""
_GRACE_S = 10
"""A decoder ends itself this much after its time limit, if nobody is left to end it."""
_LONGEST_ALARM_S = 10**9
_LONGEST_MS = 2**31 - 1
"""The longest that poll() can wait."""


@dataclass(frozen=True)
class Limits:
    """What one picture may cost."""

    max_pixels: int
    timeout_s: float
    memory_mb: int


@dataclass(frozen=True)
class Decoded:
    """Facts of one picture; `tile` is its 32 × 32 grey tile, empty if it did not decode."""

    facts: dict[str, Any]
    tile: bytes = b""


class DecoderPool:
    """Decoders for one set of limits, shared by all shards of this process."""

    def __init__(self, limits: Limits, workers: int | None = None) -> None:
        self._limits = limits
        self._own = threading.local()
        self._workers = workers or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")

    def measure(self, images: Sequence[Picture], done: Callable[[int], None] = lambda n: None) -> list[Decoded]:
        """Facts and tile of each picture, in order; `done` is told how many more are through."""

        def run(batch: Sequence[Picture]) -> list[Decoded]:
            results = list(self._decoder().measure(batch))
            done(len(batch))
            return results

        return list(chain.from_iterable(self._threads.map(run, _batches(images, 2 * self._workers))))

    def _decoder(self) -> _Decoder:
        if not hasattr(self._own, "decoder"):
            self._own.decoder = _Decoder(self._limits)
        decoder: _Decoder = self._own.decoder
        return decoder


def _batches(images: Sequence[Picture], shares: int) -> Iterator[Sequence[Picture]]:
    """Each a share of what is left: large ones first, small ones to end together."""
    start = 0
    while start < len(images):
        size = min(_LARGEST_BATCH, max(_SMALLEST_BATCH, (len(images) - start) // shares))
        yield images[start : start + size]
        start += size


@lru_cache(maxsize=4)
def decoder_pool(limits: Limits, workers: int | None = None) -> DecoderPool:
    """The process-wide pool for these limits."""
    return DecoderPool(limits, workers)


class _Decoder:
    """One decoder process, started when first needed and again after it was lost."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._late = False
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the decoder)

    def measure(self, images: Sequence[Picture]) -> Iterator[Decoded]:
        spans = self._write(images)
        position = 0
        crashed_before = False
        while position < len(spans):
            process = self._start()
            self._ask(process, spans[position:])
            for answer in self._answers(process, len(spans) - position):
                crashed_before = False
                position += 1
                yield answer
            if position == len(spans):
                return
            lost = self._lost(process)
            # A crash may be a neighbour's doing (memory): the picture gets one decoder to itself.
            if lost == "decode_timeout" or crashed_before:
                yield Decoded({"error": lost, "retryable": lost == "decode_timeout"})
                position += 1
            crashed_before = lost == "decoder_crashed" and not crashed_before

    def _write(self, images: Sequence[Picture]) -> list[tuple[int, int]]:
        # Over what was there: pages that are given back would have to be found anew.
        self._file.seek(0)
        spans = []
        for image in images:
            spans.append((self._file.tell(), len(image)))
            self._file.write(image)
        self._file.flush()
        return spans

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._buffer, self._late = b"", False
            limits = self._limits
            alarm_s = min(int(limits.timeout_s) + _GRACE_S, _LONGEST_ALARM_S)
            arguments = [str(n) for n in (self._file.fileno(), limits.max_pixels, limits.memory_mb, alarm_s)]
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_WORKER), *arguments],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[self._file.fileno()],
                env={**os.environ, **_ONE_THREAD},
            )
            self._await_ready(self._process)
        return self._process

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Its first line says that it has started: no picture pays for that, in time or in blame."""
        if not self._wait(process, _START_S):
            self._lost(process)
            raise ConfigError(
                f"filter.decode_memory_mb = {self._limits.memory_mb}: no decoder started with that"
                f" within {_START_S:.0f} s; give more, or free the machine"
            )
        self._buffer = b""

    def _ask(self, process: subprocess.Popen[bytes], spans: list[tuple[int, int]]) -> None:
        # A decoder that is gone answers nothing: `_answers` finds out.
        with suppress(BrokenPipeError):
            _pipe(process.stdin).write(json.dumps(spans).encode() + b"\n")

    def _answers(self, process: subprocess.Popen[bytes], expected: int) -> Iterator[Decoded]:
        """Answers until all came, one is late, or the decoder is gone."""
        deadline = time.monotonic() + self._limits.timeout_s
        while expected:
            answer = self._parse()
            if answer is not None:
                expected -= 1
                deadline = time.monotonic() + self._limits.timeout_s
                yield answer
            elif not self._wait(process, deadline - time.monotonic()):
                return
            elif expected > _SMALLEST_BATCH:
                time.sleep(_BREATH_S)

    def _wait(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Take in what the decoder has to say; False if it is late or gone."""
        out = _pipe(process.stdout).fileno()
        poll = select.poll()  # select() knows no file numbers above 1023
        poll.register(out, select.POLLIN)
        self._late = not poll.poll(min(max(0.0, seconds) * 1000, _LONGEST_MS))
        data = b"" if self._late else os.read(out, 1 << 16)
        self._buffer += data
        return bool(data)

    def _parse(self) -> Decoded | None:
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        facts = json.loads(line)
        size = facts.pop("tile")
        if len(rest) < size:
            return None
        self._buffer = rest[size:]
        return Decoded(facts, rest[:size])

    def _lost(self, process: subprocess.Popen[bytes]) -> str:
        """Put the decoder away and say why: it was late, or it had died by itself."""
        process.kill()
        process.wait()
        _pipe(process.stdin).close()
        _pipe(process.stdout).close()
        self._process = None
        return "decode_timeout" if self._late else "decoder_crashed"


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    """A pipe that Popen was asked for."""
    if pipe is None:
        raise RuntimeError("the decoder was started without pipes")
    return pipe
