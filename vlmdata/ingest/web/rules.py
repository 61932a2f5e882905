"""What one host says of who may take what."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdata.ingest.web.robots import Reservations, Robots
from vlmdata.ingest.web.trouble import Trouble


@dataclass(frozen=True, slots=True)
class Rules:
    """What one host says."""

    robots: Robots | None
    reservations: Reservations | None
    until: float

    def check(self, url: str, host: str) -> None:
        """Raise Trouble if the host does not want this address taken."""
        if self.robots and self.robots.unknown:
            raise Trouble("transient", "robots_unreachable", f"{host}/robots.txt gave no answer that allows anything")
        if self.robots and not self.robots.allows(url):
            raise Trouble("refused", "robots", f"{host}/robots.txt disallows it")
        if self.reservations and self.reservations.reserves(url):
            raise Trouble("refused", "tdm_reservation", f"{host}/.well-known/tdmrep.json reserves it")
