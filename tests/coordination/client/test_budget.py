from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.coordination.budget import Budget, BudgetExceededError, Spend
from cert.coordination.prices import parse_prices
from cert.coordination.protocol import Call, Message, Role, Usage
from cert.coordination.transcript import total_tokens
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cert.coordination.budget import Reservation

PRICES = parse_prices(
    b"models:\n"
    b"  dear: {input_usd_per_mtok: 3, output_usd_per_mtok: 15, cache_read_usd_per_mtok: 0.3,"
    b" cache_write_usd_per_mtok: 3.75}\n"
    b"  cheap: {input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.2}\n"
    b"  free: {input_usd_per_mtok: 0, output_usd_per_mtok: 0}\n"
)


def test_what_is_reserved_is_settled_released_or_charged_in_full() -> None:
    budget = Budget(max_tokens=1000, max_usd=Decimal(1), prices=PRICES)
    first, second, third = (
        budget.reserve("dear", input_tokens=100, output_tokens=50) for _ in range(3)
    )
    # 100 * 3.75 (the dearest way to count input) + 50 * 15 USD per million.
    assert first.usd == Decimal("0.001125")
    assert (budget.reserved_tokens, budget.reserved_usd) == (450, Decimal("0.003375"))
    assert first.settle(Usage(90, 10, 5, 4)) == Decimal("0.0004365")  # 270 + 150 + 1.5 + 15
    second.release()
    third.charge_unknown()
    assert budget.reserved_tokens == budget.reserved_usd == 0
    assert budget.spent == Spend(
        tokens=109 + 150,
        usd=Decimal("0.0004365") + Decimal("0.001125"),
        unknown_tokens=150,
        unknown_usd=Decimal("0.001125"),
    )


@pytest.mark.parametrize("limits", [{"max_tokens": 299}, {"max_usd": Decimal("0.002249")}])
def test_what_would_go_over_a_limit_is_refused_until_something_is_free(
    limits: dict[str, int | Decimal],
) -> None:
    budget = Budget(prices=PRICES, **limits)  # type: ignore[arg-type]
    first = budget.reserve("dear", input_tokens=100, output_tokens=50)
    with pytest.raises(BudgetExceededError, match="the call may need"):
        budget.reserve("dear", input_tokens=100, output_tokens=50)
    first.settle(Usage(1, 1))
    budget.reserve("dear", input_tokens=100, output_tokens=50)


def test_a_limit_may_be_used_up_to_the_last_token() -> None:
    budget = Budget(max_tokens=150)
    budget.reserve("m", input_tokens=100, output_tokens=50).charge_unknown()
    assert budget.spent.tokens == 150
    with pytest.raises(BudgetExceededError):
        budget.reserve("m", input_tokens=0, output_tokens=1)
    budget.reserve("m", input_tokens=0, output_tokens=0)


CALL = Call(
    key="t/single/0/0/0", model="dear", messages=(Message(Role.USER, "x" * 20),), max_tokens=50
)


def test_a_resumed_run_goes_on_from_what_it_had_spent() -> None:
    budget = Budget(max_tokens=150, prices=PRICES)
    budget.charge_earlier(CALL, Usage(60, 30, 4, 6))
    usd = Decimal("0.00018") + Decimal("0.00045") + Decimal("0.0000012") + Decimal("0.0000225")
    assert budget.spent == Spend(tokens=100, usd=usd)
    assert budget.reserved_tokens == budget.reserved_usd == 0
    with pytest.raises(BudgetExceededError, match="has 50 left"):
        budget.reserve("dear", input_tokens=51, output_tokens=0)


def test_what_an_earlier_call_cost_unsaid_is_charged_in_full_even_over_the_limit() -> None:
    budget = Budget(max_tokens=10, prices=PRICES)
    budget.charge_earlier(CALL, None)
    tokens = 20 + 64 + 16 + 50  # bytes, and what roles and the reply may take
    assert budget.spent.tokens == budget.spent.unknown_tokens == tokens
    assert budget.spent.usd == (Decimal("3.75") * 100 + 15 * 50) / 1_000_000
    with pytest.raises(BudgetExceededError):
        budget.reserve("dear", input_tokens=0, output_tokens=1)


def test_a_reservation_is_closed_once() -> None:
    reservation = Budget().reserve("m", input_tokens=1, output_tokens=1)
    reservation.release()
    for close in (reservation.release, reservation.charge_unknown):
        with pytest.raises(RuntimeError, match="closed already"):
            close()
    with pytest.raises(RuntimeError, match="closed already"):
        reservation.settle(Usage(1, 1))


def test_a_call_that_costs_more_than_its_bound_is_charged_and_counted() -> None:
    budget = Budget(max_tokens=100)
    budget.reserve("m", input_tokens=10, output_tokens=10).settle(Usage(100, 100))
    assert (budget.spent.tokens, budget.spent.overruns) == (200, 1)
    with pytest.raises(BudgetExceededError):
        budget.reserve("m", input_tokens=1, output_tokens=0)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_tokens": -1},
        {"max_usd": Decimal(-1), "prices": PRICES},
        {"max_usd": Decimal("NaN"), "prices": PRICES},
        {"max_usd": Decimal("Infinity"), "prices": PRICES},
        {"max_usd": Decimal(1)},
    ],
)
def test_a_limit_out_of_its_domain_is_refused(limits: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="budget"):
        Budget(**limits)  # type: ignore[arg-type]


def test_negative_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Budget().reserve("m", input_tokens=-1, output_tokens=0)


class Run:
    """A run of fake calls, many at a time, that end in every way there is."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.budget = Budget(
            max_tokens=self.draw.choice([None, self.draw.randrange(50_000)]),
            max_usd=self.draw.choice([None, Decimal(self.draw.randrange(100)) / 1000]),
            prices=PRICES,
        )
        self.true_tokens = 0
        self.true_usd = Decimal(0)

    def check(self) -> None:
        budget = self.budget
        assert budget.reserved_tokens >= 0
        assert budget.reserved_usd >= 0
        for limit, spent, reserved, true in (
            (budget.max_tokens, budget.spent.tokens, budget.reserved_tokens, self.true_tokens),
            (budget.max_usd, budget.spent.usd, budget.reserved_usd, self.true_usd),
        ):
            assert true <= spent + reserved
            if limit is not None:
                assert spent + reserved <= limit

    async def agent(self) -> None:
        for _ in range(self.draw.randrange(1, 8)):
            model = self.draw.choice(["dear", "cheap", "free"])
            bound, most = self.draw.randrange(3000), self.draw.randrange(1, 1500)
            try:
                reservation = self.budget.reserve(model, input_tokens=bound, output_tokens=most)
            except BudgetExceededError:
                continue
            self.check()
            try:
                await asyncio.sleep(0)
                await self.answer(reservation, model, bound, most)
            except asyncio.CancelledError:
                reservation.charge_unknown()
                raise
            finally:
                self.check()

    async def answer(self, reservation: Reservation, model: str, bound: int, most: int) -> None:
        read = self.draw.randrange(bound + 1)
        cached = self.draw.randrange(read + 1)
        usage = Usage(read - cached, self.draw.randrange(most + 1), 0, cached)
        match self.draw.randrange(4):
            case 0:
                reservation.release()
            case 1:
                # The server charged, and its answer got lost.
                self.spend(model, usage)
                reservation.charge_unknown()
            case _:
                self.spend(model, usage)
                if self.draw.random() < 0.1:
                    await asyncio.sleep(0)
                reservation.settle(usage)

    def spend(self, model: str, usage: Usage) -> None:
        self.true_tokens += total_tokens(usage)
        self.true_usd += PRICES.price(model).cost_usd(usage)


async def test_a_thousand_random_runs_never_spend_more_than_they_may() -> None:
    refused = 0
    for seed in range(1000):
        run = Run(seed)
        agents = [asyncio.ensure_future(run.agent()) for _ in range(run.draw.randrange(1, 9))]
        for _ in range(run.draw.randrange(20)):
            await asyncio.sleep(0)
        for one in agents:
            if run.draw.random() < 0.1:
                one.cancel()
        ended = await asyncio.gather(*agents, return_exceptions=True)
        faults = [one for one in ended if isinstance(one, Exception)]
        assert faults == [], seed
        run.check()
        assert run.budget.reserved_tokens == run.budget.reserved_usd == 0
        assert run.budget.spent.overruns == 0
        refused += run.budget.max_tokens is not None and run.budget.spent.tokens > 0
    assert refused > 100  # the limits were in play


counts = st.integers(0, 10**9)


@settings(deadline=None)
@given(read=counts, written=counts, cached=counts, stored=counts)
def test_no_usage_within_the_bound_costs_more_than_the_bound(
    read: int, written: int, cached: int, stored: int
) -> None:
    for price in PRICES.models.values():
        bound = price.bound_usd(input_tokens=read + cached + stored, output_tokens=written)
        assert price.cost_usd(Usage(read, written, cached, stored)) <= bound
