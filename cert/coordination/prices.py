"""What tokens cost, read from a file that the user gives; nothing is built in, prices change.

    models:
      some-model:
        input_usd_per_mtok: 3
        output_usd_per_mtok: 15
        cache_read_usd_per_mtok: 0.3      # left out: as input
        cache_write_usd_per_mtok: 3.75    # left out: as input

Costs are exact decimals: sums of floats would depend on the order of the calls.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING

from cert.core.errors import ConfigurationError
from cert.core.strict_yaml import MAX_BYTES, parse_yaml
from cert.observability.controls import escape_controls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cert.coordination.protocol import Usage

MAX_USD_PER_MTOK = 1_000_000
_MTOK = Decimal(1_000_000)
_OPTIONAL = frozenset({"cache_read_usd_per_mtok", "cache_write_usd_per_mtok"})


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens of one model cost, in USD; each >= 0."""

    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal
    cache_read_usd_per_mtok: Decimal
    cache_write_usd_per_mtok: Decimal

    def cost_usd(self, usage: Usage) -> Decimal:
        """Return what a call with this usage costs."""
        return (
            usage.input_tokens * self.input_usd_per_mtok
            + usage.output_tokens * self.output_usd_per_mtok
            + usage.cache_read_tokens * self.cache_read_usd_per_mtok
            + usage.cache_write_tokens * self.cache_write_usd_per_mtok
        ) / _MTOK

    def bound_usd(self, *, input_tokens: int, output_tokens: int) -> Decimal:
        """Return the most that a call of so many tokens can cost, however its input is counted."""
        dearest = max(
            self.input_usd_per_mtok, self.cache_read_usd_per_mtok, self.cache_write_usd_per_mtok
        )
        return (input_tokens * dearest + output_tokens * self.output_usd_per_mtok) / _MTOK


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices by the name under which a model is asked.

    Attributes:
        models: Price by model.
        digest: `sha256:` over the bytes of the file.
        source: Names the file in errors.
    """

    models: Mapping[str, Price]
    digest: str
    source: str = "prices"

    def price(self, model: str) -> Price:
        """Return the price of a model.

        Raises:
            ConfigurationError: The file does not name the model.
        """
        if model not in self.models:
            raise ConfigurationError(
                f"{self.source}: no price for the model {escape_controls(model)[:200]}",
                hint="add the model to the file of prices, with prices of 0 if it costs nothing",
            )
        return self.models[model]


def load_prices(path: Path) -> Prices:
    """Read a file of prices.

    Raises:
        ConfigurationError: It cannot be read, or is no such file; the message says where.
    """
    source = escape_controls(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigurationError(f"{source}: {reason or error}") from error
    return parse_prices(data, source=source)


def parse_prices(data: bytes, *, source: str = "prices") -> Prices:
    """Parse the bytes of a file of prices.

    Raises:
        ConfigurationError: They are no such file; the message says where.
    """
    document = parse_yaml(data, source=source)
    if not isinstance(document, dict) or set(document) != {"models"}:
        raise ConfigurationError(
            f"{source}: one key is expected, models",
            hint="models: {NAME: {input_usd_per_mtok: 3, output_usd_per_mtok: 15}}",
        )
    models = document["models"]
    if not isinstance(models, dict) or not models:
        raise ConfigurationError(f"{source}: models holds one entry or more, by model")
    return Prices(
        models={
            name: _price(entry, source=f"{source}: models.{escape_controls(name)[:200]}")
            for name, entry in models.items()
        },
        digest="sha256:" + hashlib.sha256(data).hexdigest(),
        source=source,
    )


def _price(entry: object, *, source: str) -> Price:
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{source}: a map of prices is expected")
    names = [one.name for one in fields(Price)]
    for name in entry:
        if name not in names:
            raise ConfigurationError(
                f"{source}: unknown key {escape_controls(name)[:200]}",
                hint=f"known: {', '.join(names)}",
            )
    numbers: dict[str, Decimal] = {}
    for name in names:
        if name in entry:
            numbers[name] = _usd(entry[name], source=f"{source}.{name}")
        elif name in _OPTIONAL:
            numbers[name] = numbers["input_usd_per_mtok"]
        else:
            raise ConfigurationError(f"{source}: {name} is missing")
    return Price(**numbers)


def _usd(value: object, *, source: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{source}: a number is expected")
    if not 0 <= value <= MAX_USD_PER_MTOK:
        raise ConfigurationError(f"{source}: from 0 to {MAX_USD_PER_MTOK}")
    # repr, not the float itself: 0.1 is a tenth.
    return Decimal(repr(value))
