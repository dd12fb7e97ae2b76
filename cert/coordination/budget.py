"""What a run may spend: reserved before a call, settled after it.

    open      reserve()         the most that the call can cost is set aside, or it is refused
    settled   settle(usage)     what it did cost is charged, the rest is free again
    released  release()         it cannot have cost anything
    unknown   charge_unknown()  nobody said what it cost, if anything: all of it is charged

spent + reserved never exceeds a limit, so neither does what was spent, however many calls are in
flight, as long as no call costs more than was reserved for it. One that does is charged all the
same, and counted in `Spend.overruns`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

import orjson

from cert.coordination.transcript import total_tokens
from cert.core.errors import CertError, ConfigurationError

if TYPE_CHECKING:
    from cert.coordination.prices import Prices
    from cert.coordination.protocol import Call, Usage

logger = logging.getLogger(__name__)

_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class Spend:
    """What was charged.

    Attributes:
        tokens: All tokens, those of `unknown_tokens` included.
        usd: Their price; 0 where there are no prices.
        unknown_tokens: Charged as reserved, because nobody said what the call cost.
        unknown_usd: Their price.
        overruns: Calls that cost more than the bound that was reserved for them.
    """

    tokens: int = 0
    usd: Decimal = _NOTHING
    unknown_tokens: int = 0
    unknown_usd: Decimal = _NOTHING
    overruns: int = 0


class BudgetExceededError(CertError):
    """The call might go over the budget, so it was not made."""


class Budget:
    """Limits of a run in tokens and in USD. For use from one event loop.

    Args:
        max_tokens: Input and output tokens together; None is no limit.
        max_usd: None is no limit.
        prices: What tokens cost; without them, no costs are known.

    Raises:
        ConfigurationError: A limit is negative or not finite, or one in USD has no prices.
    """

    def __init__(
        self,
        *,
        max_tokens: int | None = None,
        max_usd: Decimal | None = None,
        prices: Prices | None = None,
    ) -> None:
        if max_tokens is not None and max_tokens < 0:
            raise ConfigurationError(f"the budget in tokens is at least 0, got {max_tokens}")
        if max_usd is not None and not (max_usd.is_finite() and max_usd >= 0):
            raise ConfigurationError(f"the budget in USD is a finite number >= 0, got {max_usd}")
        if max_usd is not None and prices is None:
            raise ConfigurationError(
                "a budget in USD needs prices", hint="give a file of prices, or a budget in tokens"
            )
        self.max_tokens = max_tokens
        self.max_usd = max_usd
        self.prices = prices
        self.spent = Spend()
        self.reserved_tokens = 0
        self.reserved_usd = _NOTHING

    def reserve(self, model: str, *, input_tokens: int, output_tokens: int) -> Reservation:
        """Set aside the most that a call can cost.

        Args:
            model: Name of the model in the prices.
            input_tokens: Upper bound, >= 0.
            output_tokens: Upper bound, >= 0.

        Raises:
            BudgetExceededError: It would go over a limit.
            ConfigurationError: There is no price for the model.
        """
        tokens, usd = self._bound(model, input_tokens, output_tokens)
        _check("tokens", self.max_tokens, self.spent.tokens, self.reserved_tokens, tokens)
        _check("USD", self.max_usd, self.spent.usd, self.reserved_usd, usd)
        return self._set_aside(model, tokens, usd)

    def charge_earlier(self, call: Call, usage: Usage | None) -> None:
        """Charge a call that an earlier process of the run has made, whatever the limits are.

        Args:
            call: It.
            usage: What it cost; None charges the most that it can have cost.

        Raises:
            ConfigurationError: There is no price for the model.
        """
        if usage is None:
            input_tokens, output_tokens = bound_input_tokens(call), call.max_tokens
        else:
            output_tokens = usage.output_tokens
            input_tokens = total_tokens(usage) - output_tokens
        tokens, usd = self._bound(call.model, input_tokens, output_tokens)
        reservation = self._set_aside(call.model, tokens, usd)
        if usage is None:
            reservation.charge_unknown()
        else:
            reservation.settle(usage)

    def cost_usd(self, model: str, usage: Usage) -> Decimal | None:
        """Return what this usage costs; None without prices.

        Raises:
            ConfigurationError: There is no price for the model.
        """
        return None if self.prices is None else self.prices.price(model).cost_usd(usage)

    def _bound(self, model: str, input_tokens: int, output_tokens: int) -> tuple[int, Decimal]:
        """The most that a call can cost, in tokens and in USD."""
        if input_tokens < 0 or output_tokens < 0:
            raise ValueError("tokens are at least 0")
        if self.prices is None:
            return input_tokens + output_tokens, _NOTHING
        usd = self.prices.price(model).bound_usd(
            input_tokens=input_tokens, output_tokens=output_tokens
        )
        return input_tokens + output_tokens, usd

    def _set_aside(self, model: str, tokens: int, usd: Decimal) -> Reservation:
        self.reserved_tokens += tokens
        self.reserved_usd += usd
        return Reservation(self, model, tokens, usd)


class Reservation:
    """What is set aside for one call. Closed once, by one of its methods."""

    def __init__(self, budget: Budget, model: str, tokens: int, usd: Decimal) -> None:
        self.tokens = tokens
        self.usd = usd
        self._budget = budget
        self._model = model
        self._is_open = True

    def settle(self, usage: Usage) -> Decimal | None:
        """Charge what the call cost, and return it in USD; None without prices."""
        usd = self._budget.cost_usd(self._model, usage)
        tokens = total_tokens(usage)
        self._close()
        spent = self._budget.spent
        is_overrun = tokens > self.tokens or (usd or _NOTHING) > self.usd
        if is_overrun:
            logger.warning(
                "a call cost more than was reserved",
                extra={"reserved_tokens": self.tokens, "charged_tokens": tokens},
            )
        self._budget.spent = replace(
            spent,
            tokens=spent.tokens + tokens,
            usd=spent.usd + (usd or _NOTHING),
            overruns=spent.overruns + is_overrun,
        )
        return usd

    def release(self) -> None:
        """Give it back: the call cannot have cost anything."""
        self._close()

    def charge_unknown(self) -> None:
        """Charge all of it: the call may have cost that much."""
        self._close()
        spent = self._budget.spent
        self._budget.spent = replace(
            spent,
            tokens=spent.tokens + self.tokens,
            usd=spent.usd + self.usd,
            unknown_tokens=spent.unknown_tokens + self.tokens,
            unknown_usd=spent.unknown_usd + self.usd,
        )

    def _close(self) -> None:
        if not self._is_open:
            raise RuntimeError("the reservation is closed already")
        self._is_open = False
        self._budget.reserved_tokens -= self.tokens
        self._budget.reserved_usd -= self.usd


def bound_input_tokens(call: Call) -> int:
    """Return more tokens than the input of a call can have.

    A token of the tokenizers in use is at least one byte of UTF-8. Roles and the system prompt cost
    some more, and so does a schema, which servers turn into instructions.
    """
    texts = [message.text for message in call.messages] + [call.system or ""]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    size += 64 + 16 * len(call.messages)
    if call.schema is not None:
        size += 1024 + len(orjson.dumps(dict(call.schema)))
    return size


def _check(
    unit: str,
    limit: Decimal | int | None,
    spent: Decimal | int,
    reserved: Decimal | int,
    wanted: Decimal | int,
) -> None:
    if limit is not None and spent + reserved + wanted > limit:
        raise BudgetExceededError(
            f"the budget of {limit} {unit} has {limit - spent - reserved} left,"
            f" and the call may need {wanted}",
            hint="raise the budget, or lower max_tokens; a resumed run goes on from here",
        )
