"""Verifying time stamps: by other roots, altered, cut, with certificates added."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.core.errors import ConfigurationError
from cert.ledger.errors import ProofError
from cert.ledger.timestamp import verify_timestamp
from tests.ledger.tsa import NOTE, TSA_USAGE, Authority, authority_of_tests, issue, make_authority

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority_of_tests(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def token(authority: Authority) -> bytes:
    return authority.token()


def test_another_root_does_not_vouch(authority: Authority, token: bytes) -> None:
    other = issue("Root of the tests", is_ca=True)  # the same name, another key
    with pytest.raises(ProofError, match="does not hold: certificate signature failure") as caught:
        verify_timestamp(token, NOTE, other.pem)
    assert caught.value.hint
    stranger = issue("Somebody else", is_ca=True)
    with pytest.raises(ProofError, match="does not hold: unable to get local issuer certificate"):
        verify_timestamp(token, NOTE, stranger.pem)
    stamp = verify_timestamp(token, NOTE, stranger.pem + authority.root.pem)
    assert stamp == verify_timestamp(token, NOTE, authority.root.pem)


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\xff\x00"])
def test_roots_that_are_none(token: bytes, pem: bytes) -> None:
    with pytest.raises(ConfigurationError, match="no PEM certificates") as caught:
        verify_timestamp(token, NOTE, pem)
    assert caught.value.hint


def test_digests(authority: Authority) -> None:
    for digest in ("-sha256", "-sha512"):
        assert verify_timestamp(authority.token(digest=digest), NOTE, authority.root.pem)
    with pytest.raises(ProofError, match="Unsupported hash algorithm"):
        verify_timestamp(authority.token(digest="-sha1"), NOTE, authority.root.pem)


def test_a_fraction_of_a_second_is_cut_off(authority: Authority) -> None:
    token = authority.token(digits=6)
    stamp = verify_timestamp(token, NOTE, authority.root.pem)
    stamped = dt.datetime.fromisoformat(stamp.time)
    second = re.escape(stamped.strftime("%b %e %H:%M:%S"))
    assert re.search(rf"Time stamp: {second}(\.\d+)? ", authority.text(token))
    assert len(stamp.time) == len("2026-01-01T00:00:00Z")


def test_an_intermediate_authority(tmp_path: Path) -> None:
    root = issue("Root", is_ca=True)
    between = issue("Between", root, is_ca=True)
    tsa = make_authority(tmp_path, root, issue("", between, usages=TSA_USAGE))
    token = tsa.token(chain=between.pem)
    assert verify_timestamp(token, NOTE, root.pem).tsa is None
    with pytest.raises(ProofError, match="unable to get local issuer certificate"):
        verify_timestamp(tsa.token(), NOTE, root.pem)


def test_one_certificate_alone_may_be_the_signers(authority: Authority) -> None:
    """Certificates in a token are not signed over: a second one could lend its key usage."""
    mine = authority.signer.certificate
    # The longer one comes after the signer's in a token, so the signature is good; the other not.
    for name, message in (("D" * 60, "2 certificates of one issuer"), ("D", "signature failure")):
        double = issue(name, authority.root, usages=TSA_USAGE, serial=mine.serial_number)
        with pytest.raises(ProofError, match=message):
            verify_timestamp(authority.token(chain=double.pem), NOTE, authority.root.pem)
    stranger = issue("Stranger", authority.root)
    assert verify_timestamp(authority.token(chain=stranger.pem), NOTE, authority.root.pem)


def test_a_token_without_its_certificate(authority: Authority) -> None:
    token = authority.reply(authority.query(NOTE, "-sha256"))
    with pytest.raises(ProofError, match="does not hold"):
        verify_timestamp(token, NOTE, authority.root.pem)


def test_flipped_bytes(authority: Authority, token: bytes) -> None:
    """Versions, the name of the signature's algorithm and a name's string type are not signed."""
    genuine = verify_timestamp(token, NOTE, authority.root.pem)
    unharmed = []
    for place in range(len(token)):
        for bit in (0x01, 0x20, 0x80):
            altered = bytearray(token)
            altered[place] ^= bit
            try:
                stamp = verify_timestamp(bytes(altered), NOTE, authority.root.pem)
            except ProofError:
                continue
            assert stamp == genuine
            unharmed.append(place)
    assert len(set(unharmed)) < 20


def test_cut_and_lengthened_tokens(authority: Authority, token: bytes) -> None:
    for altered in [token[:length] for length in range(len(token))] + [token + b"\0", token * 2]:
        with pytest.raises(ProofError):
            verify_timestamp(altered, NOTE, authority.root.pem)


@pytest.mark.parametrize("status", [1, 2, 3, 4, 5, 32])
def test_granted_alone_is_granted(authority: Authority, token: bytes, status: int) -> None:
    assert token[6:9] == b"\x02\x01\x00"  # within two SEQUENCEs: INTEGER 0
    altered = token[:8] + bytes([status]) + token[9:]
    with pytest.raises(ProofError, match=r"GRANTED|valid PKIStatus"):
        verify_timestamp(altered, NOTE, authority.root.pem)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_mutated_tokens(authority: Authority, token: bytes, data: st.DataObject) -> None:
    altered = bytearray(token)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(altered) - 1))
        end = place + data.draw(st.integers(0, 3))
        altered[place:end] = data.draw(st.binary(max_size=3))
    try:
        stamp = verify_timestamp(bytes(altered), NOTE, authority.root.pem)
    except ProofError:
        return
    assert stamp == verify_timestamp(token, NOTE, authority.root.pem)


@settings(max_examples=50)
@given(noise=st.binary(max_size=200))
def test_noise(authority: Authority, token: bytes, noise: bytes) -> None:
    with pytest.raises(ProofError):
        verify_timestamp(noise, NOTE, authority.root.pem)
    if noise != NOTE:
        with pytest.raises(ProofError, match="Mismatch between messages"):
            verify_timestamp(token, noise, authority.root.pem)
