"""How long to wait before asking again: exponential with full jitter, or as the server says.

https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ and RFC 9110, 10.2.3.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class Backoff:
    """Seconds: the first pause's upper bound, the longest pause of our own, the longest a server may ask for."""

    first_s: float = 0.5
    longest_s: float = 30.0
    longest_retry_after_s: float = 120.0

    def pause(self, tried: int, retry_after: float | None = None) -> float:
        """Seconds to wait after `tried` requests (1 or more) failed.

        A server's own figure is a lower bound: jitter is added, so that all
        who were sent away do not come back at once.
        """
        if retry_after is not None:
            return min(max(retry_after, 0.0), self.longest_retry_after_s) + random.uniform(0, self.first_s)
        return random.uniform(0, min(self.longest_s, self.first_s * 2 ** (tried - 1)))


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Seconds that a `Retry-After` header asks for, given as a number or as an HTTP date; null if it is neither."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, OverflowError):
        # No date, or one that no calendar holds.
        return None
