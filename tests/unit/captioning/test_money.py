"""Money is exact, rounded up, and never less than what may be asked for."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vlmdata.captioning.journal.records import NANO
from vlmdata.captioning.money import check_money, cost, limits_of, most_input_tokens, price_of, worst_case
from vlmdata.captioning.provider import Question
from vlmdata.config import CaptionConfig, Price
from vlmdata.errors import ConfigError

# Prices are written with a few digits, and read as binary fractions that are none of them.
DOLLARS = st.integers(0, 10**6).map(lambda mills: float(Decimal(mills) / 1000))
PRICES = st.builds(Price, input=DOLLARS, output=DOLLARS, image_tokens=st.integers(0, 10_000))
TOKENS = st.integers(0, 10**7)
QUESTIONS = st.builds(Question, st.just("m"), st.text(), st.integers(1, 10_000), st.just(0.0))


def exact(price: Price, input_tokens: int, output_tokens: int, share: Fraction = Fraction(1)) -> Fraction:
    """Nanodollars, as the price is written."""
    a, b = Fraction(str(price.input)), Fraction(str(price.output))
    return (a * input_tokens + b * output_tokens) * share * NANO / 1_000_000


@given(PRICES, TOKENS, TOKENS)
def test_a_cost_is_exact_and_rounded_up(price: Price, asked: int, said: int) -> None:
    for batch, share in ((False, Fraction(1)), (True, Fraction(1, 2))):
        charged = cost(price, asked, said, batch=batch)
        assert charged is not None and 0 <= charged - exact(price, asked, said, share) < 1


@given(PRICES, st.lists(st.tuples(TOKENS, TOKENS), max_size=20))
def test_a_sum_is_not_less_than_what_is_charged_for_all(price: Price, used: list[tuple[int, int]]) -> None:
    charged = sum(cost(price, *each, batch=False) or 0 for each in used)
    owed = exact(price, sum(asked for asked, _ in used), sum(said for _, said in used))
    assert 0 <= charged - owed <= len(used)


@given(PRICES, QUESTIONS, st.data())
def test_no_request_within_its_bounds_costs_more_than_what_is_set_aside(
    price: Price, question: Question, data: st.DataObject
) -> None:
    asked = data.draw(st.integers(0, most_input_tokens(question, price)))
    said = data.draw(st.integers(0, question.max_tokens))
    assert (cost(price, asked, said, batch=data.draw(st.booleans())) or 0) <= worst_case(question, price)


@given(PRICES, st.text(), st.text())
def test_a_longer_prompt_sets_more_aside(price: Price, prompt: str, more: str) -> None:
    assume(more and price.input)
    short, long = (Question("m", text, 10, 0.0) for text in (prompt, prompt + more))
    assert worst_case(short, price) < worst_case(long, price)


def test_what_nobody_counted_is_not_known_and_what_has_no_price_is_free() -> None:
    price = Price(input=1, output=2)
    assert cost(price, None, 7, batch=False) is None
    assert cost(price, 90, None, batch=True) is None
    assert cost(None, None, None, batch=False) == 0 == worst_case(Question("m", "?", 9, 0.0), None)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_any_count_that_a_server_claims_is_a_number_that_a_column_holds(asked: int, said: int) -> None:
    charged = cost(Price(input=75, output=150), asked, said, batch=False)
    assert charged is not None and charged.bit_length() <= 63


@given(st.integers(0, 10**9))
def test_a_limit_is_what_is_written(cents: int) -> None:
    config = CaptionConfig(max_cost=float(Decimal(cents) / 100), max_requests=cents)
    assert (limits_of(config).cost, limits_of(config).requests) == (cents * NANO // 100, cents)


def test_no_limit_is_none_and_nought_is_one() -> None:
    assert (limits_of(CaptionConfig()).cost, limits_of(CaptionConfig()).requests) == (None, None)
    nothing = limits_of(CaptionConfig(max_cost=0, max_requests=0))
    assert (nothing.cost, nothing.requests) == (0, 0)


def test_a_bound_on_money_needs_the_price_of_the_model_that_is_asked() -> None:
    config = CaptionConfig(
        base_url="http://127.0.0.1:1/v1", model="m", max_cost=1, prices={"n": Price(input=1, output=1)}
    )
    with pytest.raises(ConfigError, match=r"no price for 'm' \(it has n\)") as caught:
        check_money(config)
    assert "\n" not in str(caught.value)
    check_money(config.model_copy(update={"max_cost": None}))
    check_money(config.model_copy(update={"model": "n"}))
    assert price_of(config) is None
