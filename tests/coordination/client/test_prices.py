from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from cert.coordination.prices import load_prices, parse_prices
from cert.coordination.protocol import Usage
from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = b"""
models:
  a:
    input_usd_per_mtok: 3
    output_usd_per_mtok: 15.5
    cache_read_usd_per_mtok: 0.3
    cache_write_usd_per_mtok: 3.75
  "b:free":
    input_usd_per_mtok: 0.1
    output_usd_per_mtok: 0
"""


def test_a_file_of_prices_is_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_bytes(GOOD)
    prices = load_prices(path)
    assert prices.digest == "sha256:" + hashlib.sha256(GOOD).hexdigest()
    # 7 * 3 + 11 * 15.5 + 13 * 0.3 + 17 * 3.75 = 259.15 USD per million.
    assert prices.price("a").cost_usd(Usage(7, 11, 13, 17)) == Decimal("0.00025915")
    # A tenth is a tenth, and what is left out costs what input costs.
    assert prices.price("b:free").cost_usd(Usage(1, 9, 1, 1)) == Decimal("0.0000003")


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no price for the model x") as raised:
        parse_prices(GOOD).price("x\x1b[2J")
    assert "\x1b" not in str(raised.value)
    assert "prices of 0" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "one key is expected"),
        (b"[]", "one key is expected"),
        (b"models: {}\nother: 1", "one key is expected"),
        (b"models:", "models holds one entry or more"),
        (b"models: {}", "models holds one entry or more"),
        (b"models: [a]", "models holds one entry or more"),
        (b"models: {a: 3}", r"models\.a: a map of prices"),
        (b"models: {a: {input_usd_per_mtok: 1}}", "output_usd_per_mtok is missing"),
        (b"models: {a: {output_usd_per_mtok: 1}}", "input_usd_per_mtok is missing"),
        (
            b"models: {a: {input_usd_per_mtok: 1, output_usd_per_mtok: 1, input: 1}}",
            "unknown key input",
        ),
        (b"models: {a: {input_usd_per_mtok: -1, output_usd_per_mtok: 1}}", "from 0 to"),
        (b"models: {a: {input_usd_per_mtok: 1e7, output_usd_per_mtok: 1}}", "from 0 to"),
        (b"models: {a: {input_usd_per_mtok: .inf, output_usd_per_mtok: 1}}", "not a finite"),
        (b"models: {a: {input_usd_per_mtok: true, output_usd_per_mtok: 1}}", "a number"),
        (b"models: {a: {input_usd_per_mtok: '3', output_usd_per_mtok: 1}}", "a number"),
        (b"models: {a: {input_usd_per_mtok: null, output_usd_per_mtok: 1}}", "a number"),
        (b"models: {a: &x {}, a: *x}", "stands twice"),
        (b"\xff", "not UTF-8"),
        (b"x" * 300_000, "larger than"),
        (b"models: {a: {input_usd_per_mtok: " + b"9" * 5000 + b"}}", "too many digits"),
        (b"models: {a: {input_usd_per_mtok: " + b"9" * 400 + b"}}", "from 0 to"),
    ],
)
def test_what_is_no_file_of_prices_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        parse_prices(data, source="p.yaml")
    assert str(raised.value).startswith("p.yaml")


@pytest.mark.parametrize("name", ["missing.yaml", ".", "nul\0.yaml"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        load_prices(tmp_path / name)
