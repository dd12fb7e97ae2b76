"""Keys against RFC 8032's vectors and against files that openssl made."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cert.ledger.errors import ProofError, SigningKeyError
from cert.ledger.keys import (
    PublicKey,
    Signer,
    bytes_from_base64,
    parse_public_key,
    public_key_from_base64,
    rotation_message,
)

if TYPE_CHECKING:
    from pathlib import Path

# RFC 8032, 7.1: tests 1 to 3; secret, public, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c"
            "f9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0"
            "f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f76098"
            "4dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    return subprocess.run(
        ["openssl", *arguments], input=data, capture_output=True, check=True, timeout=60
    ).stdout


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_vectors_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    signer = Signer(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    data, signed = bytes.fromhex(message), bytes.fromhex(signature)
    assert signer.public == PublicKey(bytes.fromhex(public))
    assert signer.sign(data) == signed
    signer.public.verify(signed, data)
    for wrong, of in (
        (signed, data + b"x"),
        (signed[:-1], data),
        (b"", data),
        (bytes([signed[0] ^ 1]) + signed[1:], data),
    ):
        with pytest.raises(ProofError, match="no signature of ed25519:"):
            signer.public.verify(wrong, of)


def test_bytes_that_are_no_point_verify_nothing() -> None:
    # y = 2 is on no point of the curve; such a key can be stated, and has signed nothing.
    with pytest.raises(ProofError):
        PublicKey(b"\x02" + bytes(31)).verify(bytes(64), b"")


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_has_32_bytes(size: int) -> None:
    with pytest.raises(SigningKeyError, match=f"32 bytes, not {size}"):
        PublicKey(bytes(size))


def test_texts_of_a_key() -> None:
    raw = bytes.fromhex(VECTORS[0][1])
    key = PublicKey(raw)
    assert key.base64 == "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    assert key.text == "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    assert key.fingerprint == hashlib.sha256(raw).hexdigest()
    # RFC 8410: the prefix of an Ed25519 SubjectPublicKeyInfo.
    der = base64.b64decode(b"".join(key.pem.splitlines()[1:-1]))
    assert der == bytes.fromhex("302a300506032b6570032100") + raw


def test_keys_of_openssl_are_read(tmp_path: Path) -> None:
    pem = openssl("genpkey", "-algorithm", "ed25519")
    signer = Signer.from_pem(pem, source="it")
    public = openssl("pkey", "-pubout", data=pem)
    assert signer.public.pem == public
    assert parse_public_key(public, source="it") == signer.public
    data, signature = tmp_path / "data", tmp_path / "signature"
    data.write_bytes(b"some bytes")
    signature.write_bytes(signer.sign(b"some bytes"))
    (tmp_path / "key").write_bytes(public)
    said = openssl(
        "pkeyutl", "-verify", "-pubin", "-inkey", str(tmp_path / "key"), "-rawin",
        "-in", str(data), "-sigfile", str(signature),
    )  # fmt: skip
    assert b"Verified Successfully" in said


def test_openssl_reads_what_is_written() -> None:
    signer = Signer.generate()
    assert openssl("pkey", "-pubout", data=signer.to_pem()) == signer.public.pem
    encrypted = signer.to_pem(b"a password")
    assert b"ENCRYPTED" in encrypted
    public = openssl("pkey", "-pubout", "-passin", "pass:a password", data=encrypted)
    assert public == signer.public.pem


def test_an_encrypted_key_takes_its_password() -> None:
    pem = openssl("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:right")
    signer = Signer.from_pem(pem, source="it", password=b"right")
    assert Signer.from_pem(signer.to_pem(b"x"), source="it", password=b"x").public == signer.public
    with pytest.raises(SigningKeyError, match="it is encrypted") as caught:
        Signer.from_pem(pem, source="it")
    assert "CERT_KEY_PASSWORD" in str(caught.value.hint)
    with pytest.raises(SigningKeyError, match="wrong password, or a damaged file"):
        Signer.from_pem(pem, source="it", password=b"wrong")


def test_a_password_for_a_plain_key_is_not_used() -> None:
    signer = Signer.generate()
    assert Signer.from_pem(signer.to_pem(), source="it", password=b"x").public == signer.public


@pytest.mark.parametrize("algorithm", ["X25519", "RSA", "EC", "ed448"])
def test_another_kind_of_key_is_refused(algorithm: str) -> None:
    more = {
        "EC": ("-pkeyopt", "ec_paramgen_curve:P-256"),
        "RSA": ("-pkeyopt", "rsa_keygen_bits:2048"),
    }.get(algorithm, ())
    pem = openssl("genpkey", "-algorithm", algorithm, *more)
    with pytest.raises(SigningKeyError, match="the signing key it is no Ed25519 key"):
        Signer.from_pem(pem, source="it")
    with pytest.raises(SigningKeyError, match="it is no Ed25519 key"):
        parse_public_key(openssl("pkey", "-pubout", data=pem), source="it")


@pytest.mark.parametrize("pem", [b"", b"\x00\xff", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_private_key_is_refused(pem: bytes) -> None:
    with pytest.raises(SigningKeyError, match="no PEM private key"):
        Signer.from_pem(pem, source="it")


def test_a_public_key_is_no_signing_key() -> None:
    with pytest.raises(SigningKeyError, match="no PEM private key"):
        Signer.from_pem(Signer.generate().public.pem, source="it")


def test_public_keys_are_read_in_both_forms() -> None:
    key = Signer.generate().public
    for form in (key.pem, key.text.encode(), b"  " + key.text.encode() + b"\r\n", b"\n" + key.pem):
        assert parse_public_key(form, source="it") == key


def test_a_private_key_is_not_taken_for_verifying() -> None:
    for pem in (Signer.generate().to_pem(), Signer.generate().to_pem(b"x")):
        with pytest.raises(SigningKeyError, match="it is a private key"):
            parse_public_key(pem, source="it")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ed25519:",
        b"ed25519:" + b"A" * 42 + b"==",
        b"ED25519:" + b"A" * 43 + b"=",
        b"A" * 43 + b"=",
        b"\xff" * 60,
        b"-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n",
    ],
)
def test_what_is_no_public_key_is_refused(data: bytes) -> None:
    with pytest.raises(SigningKeyError, match="it is no public key"):
        parse_public_key(data, source="it")


def test_base64_has_one_spelling() -> None:
    zero = b"ed25519:" + b"A" * 43 + b"="
    assert parse_public_key(zero, source="it").raw == bytes(32)
    # The same bytes with bits set where nothing is.
    with pytest.raises(SigningKeyError, match="no canonical base64"):
        parse_public_key(b"ed25519:" + b"A" * 42 + b"B=", source="it")


@given(st.binary(max_size=100))
def test_any_bytes_are_a_public_key_or_an_error(data: bytes) -> None:
    for one in (data, b"ed25519:" + data, b"-----BEGIN PUBLIC KEY-----\n" + data):
        with pytest.raises(SigningKeyError):
            parse_public_key(one, source="it")


@given(st.binary(max_size=80))
def test_base64_is_read_back(data: bytes) -> None:
    assert bytes_from_base64(base64.b64encode(data).decode(), "it") == data


@pytest.mark.parametrize(
    "text", ["AA", "A===", "AAA", "AAAA\n", "AA AA", "AB==", "é", None, 1234, ["AAAA"], b"AAAA"]
)
def test_what_is_no_canonical_base64_is_refused(text: object) -> None:
    with pytest.raises(SigningKeyError, match="it is no"):
        bytes_from_base64(text, "it")


def test_a_record_holds_a_key_of_32_bytes() -> None:
    key = Signer.generate().public
    assert public_key_from_base64(key.base64) == key
    with pytest.raises(SigningKeyError, match="32 bytes, not 3"):
        public_key_from_base64("AAAA")
    with pytest.raises(SigningKeyError, match="a public key is no"):
        public_key_from_base64(None)


def test_the_message_of_a_rotation_is_that_of_the_page() -> None:
    one, two = PublicKey(bytes(32)), PublicKey(bytes([255] * 32))
    assert rotation_message("example.com/l", 12, bytes(range(32)), one, two) == (
        b"cert-ledger/key-rotation/v1\nexample.com/l\n12\n"
        b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
        b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
        b"//////////////////////////////////////////8=\n"
    )
