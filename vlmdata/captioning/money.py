"""What a request may cost, and what it did: whole nanodollars, rounded up."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from vlmdata.captioning.journal.grants import Limits
from vlmdata.captioning.journal.records import NANO
from vlmdata.captioning.provider import Question
from vlmdata.config import CaptionConfig, Price
from vlmdata.errors import ConfigError

BATCH_FACTOR = Fraction(1, 2)
"""What OpenAI and Anthropic charge for a request in a batch."""
_FRAMING_TOKENS = 64
"""Roles, separators and the like around one message."""
DEFAULT_IMAGE_TOKENS = 1_600
_MILLION = 1_000_000
_MOST = 2**63 - 1
"""Nanodollars that a column of the journal's tables holds; a server may claim any number of tokens."""


def price_of(config: CaptionConfig) -> Price | None:
    """The price of the model that is asked; None if the config names none."""
    return config.prices.get(config.model or "")


def check_money(config: CaptionConfig) -> None:
    """A bound on money needs the price.

    Raises:
        ConfigError: `max_cost` is set, and what the model costs is not.
    """
    if config.max_cost is not None and config.base_url is not None and price_of(config) is None:
        known = ", ".join(config.prices) or "none"
        raise ConfigError(
            f"caption.max_cost = {config.max_cost}: caption.prices has no price for {config.model!r} (it has {known});"
            f" add {config.model}: {{input: …, output: …, image_tokens: …}}, dollars for a million tokens"
        )


def limits_of(config: CaptionConfig) -> Limits:
    """The hard bounds that a config sets."""
    most = None if config.max_cost is None else int(Fraction(str(config.max_cost)) * NANO)
    return Limits(config.max_requests, most)


def most_input_tokens(question: Question, price: Price | None) -> int:
    """An upper bound: no tokenizer makes more tokens than there are bytes."""
    picture = price.image_tokens if price else DEFAULT_IMAGE_TOKENS
    return len(question.prompt.encode()) + _FRAMING_TOKENS + picture


def worst_case(question: Question, price: Price | None) -> int:
    """The most that one request can cost, nanodollars; 0 without a price."""
    return cost(price, most_input_tokens(question, price), question.max_tokens, batch=False) or 0


def cost(price: Price | None, input_tokens: int | None, output_tokens: int | None, *, batch: bool) -> int | None:
    """What was used costs, nanodollars; None if that is not known."""
    if price is None:
        return 0
    if input_tokens is None or output_tokens is None:
        return None
    dollars = Fraction(str(price.input)) * input_tokens + Fraction(str(price.output)) * output_tokens
    factor = BATCH_FACTOR if batch else Fraction(1)
    return min(ceil(dollars * factor * NANO / _MILLION), _MOST)
