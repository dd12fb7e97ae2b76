from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cert.core.config import CERTConfig
from cert.core.errors import ConfigurationError
from cert.service.access import check_exposure, is_loopback, load_token, shows_token

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "0123456789abcdef-token"  # noqa: S105 - a test's


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, None, flag="--host")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])  # noqa: S104 - refused
def test_other_addresses_need_one(host: str) -> None:
    check_exposure(host, TOKEN, flag="--host")
    with pytest.raises(ConfigurationError, match="no token") as caught:
        check_exposure(host, None, flag="--host")
    assert "--token-file" in (caught.value.hint or "")


def test_a_token_comes_from_the_setting_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert load_token(CERTConfig()) is None
    assert load_token(CERTConfig(token=TOKEN)) == TOKEN
    assert load_token(CERTConfig(token_file=str(file))) == TOKEN
    with pytest.raises(ConfigurationError, match="both"):
        load_token(CERTConfig(token=TOKEN, token_file=str(file)))


@pytest.mark.parametrize(
    "content", [b"", b"short\n", b"a token with spaces in it", b"\xff" * 32, b"a" * 5000]
)
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="holds no token") as caught:
        load_token(CERTConfig(token_file=str(file)))
    assert "spaces in it" not in caught.value.message


@pytest.mark.parametrize("name", ["missing", ".", "nul\0"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_token(CERTConfig(token_file=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN} ", True),
        (f"Basic {TOKEN}", False),
        (f"Bearer {TOKEN}x", False),
        (f"Bearer {TOKEN[:-1]}", False),
        (TOKEN, False),
        ("Bearer \udc80\xff", False),
        ("", False),
        (None, False),
    ],
)
def test_only_the_token_shows_the_token(header: str | None, shown: bool) -> None:
    assert shows_token(header, TOKEN) is shown
