"""Signed checkpoints against the examples of C2SP and notes signed by hand; what is refused."""

from __future__ import annotations

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.ledger.checkpoint import (
    MAX_NOTE_BYTES,
    Checkpoint,
    is_origin,
    key_id_of,
    parse_checkpoint,
    sign_checkpoint,
)
from cert.ledger.errors import ProofError
from cert.ledger.keys import PublicKey, Signer
from tests.ledger.ledgers import ORIGIN, b64, note_of, private, raw, sha, signature_line

KEY, OTHER = private("first"), private("second")
ROOT = sha(b"root")
NOTE = note_of(ORIGIN, 41, ROOT, KEY)

# The example of c2sp.org/tlog-checkpoint.
EXAMPLE = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""  # noqa: E501 - one line of the note

# The example of c2sp.org/signed-note: its text, its signer's seed, public key and signature.
NOTE_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
NOTE_NAME = "PeterNeumann"
NOTE_SEED = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NOTE_KEY = "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE_KEY_ID = "c74f20a3"
NOTE_SIGNATURE = (
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
)


def public(key: Ed25519PrivateKey) -> PublicKey:
    return PublicKey(raw(key))


def is_signed(note: bytes, origin: str, key: bytes) -> bool:
    """An independent note verifier: split at the last blank line, look for the key, verify."""
    text, _, signatures = note.rpartition(b"\n\n")
    key_id = sha(origin.encode() + b"\n\x01" + key)[:4]
    good = False
    for line in signatures.decode().splitlines():
        dash, name, encoded = line.split(" ")
        signature = base64.b64decode(encoded)
        if dash == "—" and name == origin and signature[:4] == key_id:
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(signature[4:], text + b"\n")
            except InvalidSignature:
                return False
            good = True
    return good


def test_the_example_of_tlog_checkpoint() -> None:
    signed = parse_checkpoint(EXAMPLE.encode())
    assert signed.checkpoint == Checkpoint(
        "example.com/behind-the-sofa",
        20852163,
        bytes.fromhex("0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62"),
    )
    ((name, signature),) = signed.signatures
    assert name == "example.com/behind-the-sofa"
    assert (signature[:4].hex(), len(signature)) == ("033de0ae", 68)
    assert signed.note == EXAMPLE.encode()
    assert EXAMPLE.startswith(signed.checkpoint.text.decode() + "\n")


def test_key_ids_and_signatures_are_those_of_signed_note() -> None:
    signer = Signer(Ed25519PrivateKey.from_private_bytes(base64.b64decode(NOTE_SEED)[1:]))
    assert signer.public.raw == base64.b64decode(NOTE_KEY)[1:]
    assert key_id_of(NOTE_NAME, signer.public).hex() == NOTE_KEY_ID
    signature = signer.sign(NOTE_TEXT.encode())
    assert b64(bytes.fromhex(NOTE_KEY_ID) + signature) == NOTE_SIGNATURE
    signer.public.verify(base64.b64decode(NOTE_SIGNATURE)[4:], NOTE_TEXT.encode())


def test_a_note_that_is_no_checkpoint_is_refused() -> None:
    note = f"{NOTE_TEXT}\n— {NOTE_NAME} {NOTE_SIGNATURE}\n"
    with pytest.raises(ProofError, match="expected three lines"):
        parse_checkpoint(note.encode())


@given(
    origin=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="+"))
    .filter(bool)
    .map(lambda text: text[:255]),
    size=st.integers(0, 10**16 - 1),
    root=st.binary(min_size=32, max_size=32),
    seed=st.binary(min_size=32, max_size=32),
)
def test_what_is_signed_is_what_an_independent_signer_writes(
    origin: str, size: int, root: bytes, seed: bytes
) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    note = sign_checkpoint(Checkpoint(origin, size, root), Signer(key))
    assert note == note_of(origin, size, root, key)
    assert is_signed(note, origin, raw(key))
    signed = parse_checkpoint(note)
    assert signed.checkpoint == Checkpoint(origin, size, root)
    signed.verify(public(key))
    with pytest.raises(ProofError, match=f"size {size} is not by ed25519:"):
        signed.verify(public(OTHER))


def test_further_signatures_are_ignored_and_can_be_asked_for() -> None:
    note = note_of(ORIGIN, 41, ROOT, OTHER, KEY)
    text = note.decode().split("\n\n")[0] + "\n"
    witness = signature_line("witness.example/w", private("witness"), text)
    signed = parse_checkpoint(note + witness.encode() + witness.encode())
    assert len(signed.signatures) == 4
    signed.verify(public(KEY))
    signed.verify(public(OTHER))
    with pytest.raises(ProofError, match="is not by"):
        signed.verify(public(private("witness")))


def test_a_key_signs_under_the_origins_name_only() -> None:
    text = NOTE.decode().split("\n\n")[0] + "\n"
    note = text + "\n" + signature_line("example.com/other", KEY, text)
    with pytest.raises(ProofError, match="is not by"):
        parse_checkpoint(note.encode()).verify(public(KEY))


@pytest.mark.parametrize("is_first", [True, False])
def test_one_wrong_signature_of_a_known_key_makes_the_note_bad(is_first: bool) -> None:
    key_id = key_id_of(ORIGIN, public(KEY))
    wrong = f"— {ORIGIN} {b64(key_id + bytes(64))}\n".encode()
    text, signatures = NOTE.split(b"\n\n")
    both = wrong + signatures if is_first else signatures + wrong
    note = text + b"\n\n" + both
    assert not is_signed(note, ORIGIN, raw(KEY))
    with pytest.raises(ProofError, match="no signature of"):
        parse_checkpoint(note).verify(public(KEY))


def test_a_signature_of_an_unknown_kind_with_the_id_of_a_key_is_bad() -> None:
    short = f"— {ORIGIN} {b64(key_id_of(ORIGIN, public(KEY)) + b'x')}\n"
    with pytest.raises(ProofError, match="no signature of"):
        parse_checkpoint(NOTE + short.encode()).verify(public(KEY))


@given(st.integers(0, 8 * len(NOTE) - 1))
def test_no_bit_of_a_note_can_be_flipped(bit: int) -> None:
    changed = bytearray(NOTE)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProofError):
        parse_checkpoint(bytes(changed)).verify(public(KEY))


TEXT, SIGNATURES = NOTE.decode().split("\n\n")
ORIGIN_LINE, SIZE_LINE, ROOT_LINE = TEXT.split("\n")


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (b"", "no blank line"),
        (b"\xff\xfe\n\n", "no UTF-8"),
        (NOTE.replace(b"\n\n", b"\n"), "no blank line"),
        (NOTE[:-1], "the last line is not complete"),
        (NOTE + b"x", "the last line is not complete"),
        (f"{TEXT}\n\n".encode(), "the last line is not complete"),
        (NOTE + b"\n", "the last line is not complete|expected three lines"),
        (NOTE.replace(b"41\n", b"41\r\n"), "a control character"),
        (NOTE.replace(b"\n\n", b"\n\x00\n\n"), "a control character"),
        (f"{SIGNATURES}\t\n\n".encode(), "a control character"),
        (f"{ORIGIN_LINE}\n{SIZE_LINE}\n\n{SIGNATURES}".encode(), "expected three lines"),
        (f"{TEXT}\nextension\n\n{SIGNATURES}".encode(), "expected three lines"),
        (f"{TEXT}\n\n\n{SIGNATURES}".encode(), "expected three lines"),
        (f"\n{SIZE_LINE}\n{ROOT_LINE}\n\n{SIGNATURES}".encode(), "no origin, or no tree size"),
        (f"go.sum database\n1\n{ROOT_LINE}\n\n{SIGNATURES}".encode(), "no origin"),
        (f"{ORIGIN}\n041\n{ROOT_LINE}\n\n{SIGNATURES}".encode(), "no tree size"),
        (f"{ORIGIN}\n-1\n{ROOT_LINE}\n\n{SIGNATURES}".encode(), "no tree size"),
        (f"{ORIGIN}\n\u0664\u0661\n{ROOT_LINE}\n\n{SIGNATURES}".encode(), "no tree size"),
        (f"{ORIGIN}\n{10**16}\n{ROOT_LINE}\n\n{SIGNATURES}".encode(), "no tree size"),
        (f"{ORIGIN}\n41\nAAAA\n\n{SIGNATURES}".encode(), "the root has 3 bytes, not 32"),
        (f"{ORIGIN}\n41\n{ROOT_LINE[:-1]}\n\n{SIGNATURES}".encode(), "the root is no base64"),
        (f"{ORIGIN}\n41\n{'A' * 42}B=\n\n{SIGNATURES}".encode(), "the root is no canonical"),
        (f"{TEXT}\n\n- {ORIGIN} AAAAAAAA\n".encode(), "a signature line is malformed"),
        (f"{TEXT}\n\n—{ORIGIN} AAAAAAAA\n".encode(), "a signature line is malformed"),
        (f"{TEXT}\n\n—  AAAAAAAA\n".encode(), "a signature line is malformed"),
        (f"{TEXT}\n\n— a+b AAAAAAAA\n".encode(), "a signature line is malformed"),
        (f"{TEXT}\n\n— a\u00a0b AAAAAAAA\n".encode(), "a signature line is malformed"),
        (f"{TEXT}\n\n— {ORIGIN}\n".encode(), "a signature is too short"),
        (f"{TEXT}\n\n— {ORIGIN} AAAAAA==\n".encode(), "a signature is too short"),
        (f"{TEXT}\n\n— {ORIGIN} AAA\n".encode(), "a signature is no base64"),
        (f"{TEXT}\n\n— {ORIGIN} AAAAAAAA \n".encode(), "a signature is no base64"),
        (f"{TEXT}\n\n{SIGNATURES}free text\n".encode(), "a signature line is malformed"),
    ],
)
def test_what_is_no_checkpoint_is_refused(note: bytes, why: str) -> None:
    with pytest.raises(ProofError, match=why):
        parse_checkpoint(note)


def test_a_note_is_not_larger_than_64_kib() -> None:
    line = f"— {'w' * 200} AAAAAAAA\n".encode()
    note = NOTE + line * ((MAX_NOTE_BYTES - len(NOTE)) // len(line))
    parse_checkpoint(note)
    with pytest.raises(ProofError, match="more than 65536 bytes"):
        parse_checkpoint(note + line)


def test_names_of_ledgers() -> None:
    for good in ("a", "!", "~", "example.com/x", "x" * 255, "cert-ledger/0", "a,b", "a*"):
        assert is_origin(good)
    for bad in ("", "x" * 256, "a b", "a+b", "a\n", "é", "a\x7f", "\x00", None, 7, b"a"):
        assert not is_origin(bad)


PIECES = st.sampled_from([
    ORIGIN, SIZE_LINE, ROOT_LINE, SIGNATURES.strip(), "\n", "\n\n", "— ", " ", "+", "=", "AAAAAAAA",
    "\x00", "\r", "\u2028", "-", "0", "é",
])  # fmt: skip


@settings(max_examples=300)
@given(
    st.binary(max_size=120) | st.lists(PIECES, max_size=12).map(lambda one: "".join(one).encode())
)
def test_any_bytes_are_a_checkpoint_or_an_error_of_proofs(data: bytes) -> None:
    for note in (data, NOTE + data, data + NOTE, TEXT.encode() + b"\n\n" + data):
        try:
            signed = parse_checkpoint(note)
            signed.verify(public(KEY))
        except ProofError:
            continue
        # What holds here holds for the independent verifier, too, and is the note's own text.
        assert is_signed(note, ORIGIN, raw(KEY))
        assert note.startswith(signed.checkpoint.text + "\n— ".encode())
