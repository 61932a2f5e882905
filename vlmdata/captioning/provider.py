"""What the client and an API's dialect say to each other. A new dialect is one file and one line in `PROVIDERS`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from vlmdata.captioning.pictures import Picture

Failure = Literal["transient", "permanent", "refused", "budget"]

Blame = Literal["picture", "endpoint", "key"]
"""What a fault speaks of: this picture, the address or model (every picture fares alike), or the key."""


@dataclass(frozen=True)
class Question:
    """What a model is asked about one picture."""

    model: str
    prompt: str
    max_tokens: int
    temperature: float
    language: str = "en"


@dataclass(frozen=True)
class Answer:
    """A caption, and what the API says it used (null: it does not say)."""

    text: str
    status: int
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True)
class Fault:
    """An answer that is no caption, or none at all (`status` null); it may have cost tokens all the same."""

    failure: Failure
    status: int | None
    message: str
    blame: Blame = "picture"
    retry_after: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def unsent(self) -> bool:
        """Nobody was there to hear the request: it costs nothing and does not count."""
        return self.blame == "endpoint" and self.status is None

    @property
    def worth_retrying(self) -> bool:
        """A refused key fails now and may work in a later run, but not in the next second."""
        return self.failure == "transient" and self.blame != "key"


class Provider(Protocol):
    """One API's dialect: pure functions between pictures and bytes, no I/O."""

    @property
    def path(self) -> str:
        """Where requests go, below the base URL."""

    def headers(self, key: str | None) -> dict[str, str]:
        """Headers of a request; without a key none is sent."""

    def body(self, picture: Picture, question: Question) -> bytes:
        """The request that asks for this picture's caption."""

    def parse(self, status: int, body: bytes) -> Answer | Fault:
        """What came back; never raises, whatever came."""
