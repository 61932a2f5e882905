"""An allowance a minute, of requests or tokens, on whatever clock its caller keeps."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

MINUTE_S = 60.0
TICK_S = 0.001
"""No wait is shorter: rounding must not make one that the clock cannot see pass."""


@dataclass
class Taken:
    """What was taken, and when; `amount` is what it turned out to be, once that is known."""

    at: float
    amount: float


class Minute:
    """An allowance a minute: spread evenly by a bucket of one second's worth, and exact over any 60 seconds.

    What is taken within any half-open 60 s is at most `per_minute`, however
    much the estimates were settled down; the excess of what was settled up is
    waited for. One that asks for more than a minute's worth has a minute to itself.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._burst = max(1.0, per_minute / MINUTE_S)
        self._level = self._burst
        self._at = -math.inf
        self._factor = 1.0
        self._window: deque[Taken] = deque()
        self._in_window = 0.0

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0: now."""
        self._pass(now)
        amount = min(amount, self._per_minute)
        short = min(amount, self._burst) - self._level
        filled = max(short / self._rate, TICK_S) if short > 1e-9 else 0.0
        return max(filled, self._window_wait_s(amount, now))

    def take(self, amount: float, now: float) -> Taken:
        """Take it; `wait_s` said 0."""
        self._pass(now)
        taken = Taken(now, min(amount, self._per_minute))
        self._window.append(taken)
        self._in_window += taken.amount
        self._level -= taken.amount
        return taken

    def settle(self, taken: Taken, amount: float, now: float) -> None:
        """Replace the estimate by what it was."""
        self._pass(now)
        more, taken.amount = amount - taken.amount, amount
        self._level = min(self._burst, self._level - more)
        if self._is_in_window(taken, now):
            self._in_window += more

    def slow_to(self, factor: float, now: float) -> None:
        """From now on, this part of the full rate."""
        self._pass(now)
        self._factor = factor

    @property
    def _rate(self) -> float:
        return self._factor * self._per_minute / MINUTE_S

    def _pass(self, now: float) -> None:
        if self._at < now:
            gained = self._rate * (now - self._at)
            self._level, self._at = min(self._burst, self._level + gained), now
        while self._window and not self._is_in_window(self._window[0], now):
            self._in_window -= self._window.popleft().amount
        if not self._window:
            self._in_window = 0.0

    @staticmethod
    def _is_in_window(taken: Taken, now: float) -> bool:
        return taken.at + MINUTE_S > now

    def _window_wait_s(self, amount: float, now: float) -> float:
        over, wait = self._in_window + amount - self._per_minute, 0.0
        for taken in self._window:
            if over <= 1e-9:
                break
            over, wait = over - taken.amount, max(taken.at + MINUTE_S - now, TICK_S)
        return wait
