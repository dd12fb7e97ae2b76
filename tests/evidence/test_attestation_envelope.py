"""DSSE envelopes against securesystemslib, the protocol's example, and every byte altered."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from cert.evidence.attestation import MAX_SIGNATURES, PAYLOAD_TYPE, sign_dsse, verify_dsse
from cert.ledger.canonical import canonical_bytes, parse_canonical
from cert.ledger.errors import ProofError, SigningKeyError
from cert.ledger.keys import Signer

if TYPE_CHECKING:
    from collections.abc import Iterable

# RFC 8032, section 7.1, test 1.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
PAYLOAD = canonical_bytes({"_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "ä"}]})


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(Ed25519PrivateKey.from_private_bytes(SEED))


@pytest.fixture(scope="module")
def theirs() -> CryptoSigner:
    """The same key in securesystemslib's hands."""
    private = Ed25519PrivateKey.from_private_bytes(SEED)
    return CryptoSigner(private, SSlibKey.from_crypto(private.public_key(), keyid="k1"))


def test_the_envelope_byte_for_byte(signer: Signer) -> None:
    """The protocol's own example of what is signed, with a key that signs by quoting."""
    envelope = sign_dsse(b"hello world", "http://example.com/HelloWorld", bytes, "k")
    signed = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert envelope == (
        b'{"payload":"aGVsbG8gd29ybGQ=","payloadType":"http://example.com/HelloWorld",'
        b'"signatures":[{"keyid":"k","sig":"' + base64.b64encode(signed) + b'"}]}'
    )
    assert parse_canonical(envelope)


def test_lengths_are_of_bytes() -> None:
    (signature,) = json.loads(sign_dsse("ä€".encode(), "type/ä", bytes, "k"))["signatures"]
    assert base64.b64decode(signature["sig"]) == "DSSEv1 7 type/ä 5 ä€".encode()


payloads = st.binary(max_size=300)
types = st.text(max_size=30)


@settings(max_examples=50, deadline=None)
@given(payload=payloads, kind=types)
def test_securesystemslib_verifies_ours(
    signer: Signer, theirs: CryptoSigner, payload: bytes, kind: str
) -> None:
    envelope = sign_dsse(payload, kind, signer.sign, "k1")
    read = Envelope.from_dict(json.loads(envelope))
    assert read.verify([theirs.public_key], 1) == {"k1": theirs.public_key}
    assert (read.payload, read.payload_type) == (payload, kind)
    assert verify_dsse(envelope, PUBLIC, payload_type=kind) == payload


@settings(max_examples=50, deadline=None)
@given(payload=payloads, kind=types)
def test_we_verify_securesystemslibs(theirs: CryptoSigner, payload: bytes, kind: str) -> None:
    envelope = Envelope(payload, kind, {})
    envelope.sign(theirs)
    written = json.dumps(envelope.to_dict(), indent=1).encode()
    assert verify_dsse(written, PUBLIC, payload_type=kind) == payload


def test_both_refuse_another_key(theirs: CryptoSigner) -> None:
    envelope = sign_dsse(b"{}", PAYLOAD_TYPE, Signer.generate().sign, "k1")
    with pytest.raises(VerificationError):
        Envelope.from_dict(json.loads(envelope)).verify([theirs.public_key], 1)
    with pytest.raises(ProofError, match="has no signature of ed25519:"):
        verify_dsse(envelope, PUBLIC)


@pytest.mark.parametrize("key", [b"", PUBLIC[:31], PUBLIC + b"\0", b"ed25519:" + PUBLIC])
def test_keys_of_another_length(signer: Signer, key: bytes) -> None:
    with pytest.raises(SigningKeyError, match="32 bytes"):
        verify_dsse(sign_dsse(b"{}", PAYLOAD_TYPE, signer.sign, "k"), key)


def test_another_payload_type(signer: Signer) -> None:
    envelope = sign_dsse(b"{}", "application/json", signer.sign, "k")
    with pytest.raises(ProofError, match="the payload is 'application/json', not"):
        verify_dsse(envelope, PUBLIC)
    renamed = envelope.replace(b"application/json", PAYLOAD_TYPE.encode())
    with pytest.raises(ProofError, match="has no signature"):
        verify_dsse(renamed, PUBLIC)


def test_type_and_payload_cannot_trade_bytes(signer: Signer) -> None:
    envelope = json.loads(sign_dsse(b"cd", "ab", signer.sign, "k"))
    envelope |= {"payloadType": "abc", "payload": base64.b64encode(b"d").decode()}
    with pytest.raises(ProofError, match="has no signature"):
        verify_dsse(json.dumps(envelope).encode(), PUBLIC, payload_type="abc")


def signed(signer: Signer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sign_dsse(PAYLOAD, PAYLOAD_TYPE, signer.sign, "k1"))
    return found


def test_key_ids_are_hints_alone(signer: Signer) -> None:
    envelope = signed(signer)
    for keyid in ("", "somebody else", None, 7):
        envelope["signatures"][0]["keyid"] = keyid
        assert verify_dsse(json.dumps(envelope).encode(), PUBLIC)
    del envelope["signatures"][0]["keyid"]
    assert verify_dsse(json.dumps(envelope).encode(), PUBLIC)


def test_unknown_members_and_other_signatures_are_passed_over(signer: Signer) -> None:
    envelope = signed(signer) | {"more": [1, {}]}
    other = base64.b64encode(bytes(64)).decode()
    short = base64.b64encode(b"short").decode()
    envelope["signatures"] = [{"sig": other}, {"sig": short}, *envelope["signatures"]]
    assert verify_dsse(json.dumps(envelope).encode(), PUBLIC) == PAYLOAD
    envelope["signatures"] = envelope["signatures"][:2]
    with pytest.raises(ProofError, match="has no signature"):
        verify_dsse(json.dumps(envelope).encode(), PUBLIC)


def test_url_safe_base64_is_read(signer: Signer) -> None:
    payload = b"\xfb\xff\xfe" * 5  # -_ and +/ all over
    envelope = json.loads(sign_dsse(payload, PAYLOAD_TYPE, signer.sign, "k"))
    assert "+" in envelope["payload"]
    envelope["payload"] = base64.urlsafe_b64encode(payload).decode()
    assert verify_dsse(json.dumps(envelope).encode(), PUBLIC) == payload


def test_the_number_of_signatures_is_bounded(signer: Signer) -> None:
    envelope = signed(signer)
    envelope["signatures"] *= MAX_SIGNATURES
    assert verify_dsse(json.dumps(envelope).encode(), PUBLIC)
    envelope["signatures"].append(envelope["signatures"][0])
    with pytest.raises(ProofError, match="more than 64 signatures"):
        verify_dsse(json.dumps(envelope).encode(), PUBLIC)


def variants(envelope: dict[str, Any]) -> Iterable[object]:
    yield from ([], "x", None, 1, {})
    for name in ("payload", "payloadType", "signatures"):
        yield {key: value for key, value in envelope.items() if key != name}
        for value in (
            None,
            7,
            [],
            {},
            [None],
            ["x"],
            [{}],
            [{"sig": None}],
            "a",
            "aGk",
            "aGl=",
            "ä",
        ):
            yield envelope | {name: value}
    yield envelope | {"payload": envelope["payload"] + "\n"}
    yield envelope | {"signatures": envelope["signatures"] + [{}]}


def test_what_is_no_envelope(signer: Signer) -> None:
    for variant in variants(signed(signer)):
        with pytest.raises(ProofError):
            verify_dsse(json.dumps(variant).encode(), PUBLIC)
    for junk in (b"", b"{", b"\xff", b"\xef\xbb\xbf{}", b"[" * 100_000, b'"\\ud800"'):
        with pytest.raises(ProofError, match="no DSSE envelope"):
            verify_dsse(junk, PUBLIC)


def test_every_byte_flipped(signer: Signer) -> None:
    """Only the key id may change without harm."""
    envelope = sign_dsse(PAYLOAD, PAYLOAD_TYPE, signer.sign, "k1")
    hint = envelope.index(b'"keyid":"k1"')
    for place in range(len(envelope)):
        for bit in (0x01, 0x02, 0x20, 0x80):
            altered = bytearray(envelope)
            altered[place] ^= bit
            try:
                found = verify_dsse(bytes(altered), PUBLIC)
            except ProofError:
                continue
            assert found == PAYLOAD
            assert hint <= place < hint + len(b'"keyid":"k1"')


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_envelopes(signer: Signer, data: st.DataObject) -> None:
    altered = bytearray(sign_dsse(PAYLOAD, PAYLOAD_TYPE, signer.sign, "k1"))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(altered) - 1))
        altered[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(ProofError):
        assert verify_dsse(bytes(altered), PUBLIC) == PAYLOAD
