"""`cert keys`: made, shown, passed on; a private key is never printed."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pexpect
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from cert.ledger.key_store import KeyStore
from tests.cli.ledgers import foreign_keys, make_ledger, own_keys

if TYPE_CHECKING:
    from tests.cli.helpers import Processes, Program


def raw(text: str) -> bytes:
    return base64.b64decode(text.strip().removeprefix("ed25519:"))


def test_new_keys_become_the_current_one_and_old_ones_stay(cert: Program) -> None:
    first, second = cert("keys", "new"), cert("keys", "new")
    assert (first.code, second.code) == (0, 0)
    assert first.out.startswith("ed25519:")
    assert first.out.count("\n") == 1
    store = own_keys()
    current = store.current()
    assert current is not None
    assert current.text == second.out.strip()
    assert {one.text for one in store.all()} == {first.out.strip(), second.out.strip()}
    path = store.path_of(current)
    assert f"the private key is {path} (unencrypted" in second.err
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.folder.stat().st_mode & 0o777 == 0o700
    key = load_pem_private_key(path.read_bytes(), None)
    public = key.public_key()
    assert isinstance(public, Ed25519PublicKey)
    assert public.public_bytes_raw() == raw(second.out)


def test_a_folder_of_ones_choice(
    cert: Program, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cert("keys", "new", "--keys", "here")
    assert made.code == 0
    assert cert("keys", "show", "--keys", "here").out.split()[1] == made.out.strip()
    assert cert("keys", "show").code == 2
    monkeypatch.setenv("CERT_KEYS", str(folder / "here"))
    assert cert("keys", "show").code == 0
    (folder / "file").write_text("")
    ran = cert("keys", "new", "--keys", "file")
    assert ran.code == 2
    assert "a key cannot be written to file" in ran.err


def test_a_password_of_the_environment(cert: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERT_KEY_PASSWORD", "correct horse")
    ran = cert("keys", "new", "--password")
    assert "(encrypted)" in ran.err
    assert "correct horse" not in ran.err + ran.out
    current = own_keys().current()
    assert current is not None
    pem = own_keys().path_of(current).read_bytes()
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in pem
    assert load_pem_private_key(pem, b"correct horse") is not None


def test_a_password_is_asked_for_on_a_terminal_only(cert: Program) -> None:
    ran = cert("keys", "new", "--password")
    assert ran.code == 2
    assert "stdin is no terminal" in ran.err
    assert "CERT_KEY_PASSWORD" in ran.err
    assert own_keys().all() == []


@pytest.mark.parametrize(
    ("first", "second", "code", "words"),
    [
        ("secret words", "secret words", 0, r"\(encrypted\)"),
        ("secret words", "other words", 2, "the two passwords differ"),
        ("", "", 2, "the password is empty"),
    ],
)
def test_a_password_is_typed_twice(  # noqa: PLR0917 - parameters
    processes: Processes, folder: Path, first: str, second: str, code: int, words: str
) -> None:
    env: Any = processes.environment()
    command, *args = processes.command("keys", "new", "--password", "--keys", "here")
    child = pexpect.spawn(command, args, env=env, cwd=str(folder), timeout=60)
    child.expect("password of the new key: ")
    child.sendline(first)
    child.expect("once more: ")
    child.sendline(second)
    child.expect(words)
    child.expect(pexpect.EOF)
    assert b"secret" not in child.before
    child.close()
    assert child.exitstatus == code
    assert len(KeyStore(folder / "here").all()) == (code == 0)


@pytest.mark.parametrize(("keys", "code"), [("\x03", 130), ("\x04", 2)])
def test_nobody_has_to_type_a_password(
    processes: Processes, folder: Path, keys: str, code: int
) -> None:
    env: Any = processes.environment()
    command, *args = processes.command("keys", "new", "--password", "--keys", "here")
    child = pexpect.spawn(command, args, env=env, cwd=str(folder), timeout=60)
    child.expect("password of the new key: ")
    child.send(keys)
    child.expect(pexpect.EOF)
    assert b"Traceback" not in child.before
    child.close()
    assert child.exitstatus == code
    assert not (folder / "here").exists()


def test_show(cert: Program) -> None:
    ran = cert("keys", "show")
    assert ran.code == 2
    assert "cert keys new" in ran.err
    old = cert("keys", "new").out.strip()
    new = cert("keys", "new").out.strip()
    store = own_keys()
    fingerprints = [hashlib.sha256(raw(one)).hexdigest() for one in (new, old)]
    lines = cert("keys", "show").out.splitlines()
    assert lines[0] == f"current {new}"
    assert lines[1] == f"        fingerprint {fingerprints[0]}"
    assert lines[2] == f"        private key {store.folder}/{fingerprints[0]}.pem"
    assert lines[3] == f"other   {old}"
    assert len(lines) == 6
    shown = json.loads(cert("keys", "show", "--json").out)["keys"]
    assert [(one["key"], one["fingerprint"], one["is_current"]) for one in shown] == [
        (new, fingerprints[0], True),
        (old, fingerprints[1], False),
    ]
    pem = cert("keys", "show", "--pem").out
    public = load_pem_public_key(pem.encode())
    assert isinstance(public, Ed25519PublicKey)
    assert public.public_bytes_raw() == raw(new)


def test_a_verifier_key_is_the_one_of_c2sp(cert: Program) -> None:
    new = raw(cert("keys", "new").out)
    # c2sp.org/signed-note: <name>+<hex of the key id>+<base64 of 0x01 and the key>.
    key_id = hashlib.sha256(b"example.com/log\n\x01" + new).digest()[:4].hex()
    material = base64.b64encode(b"\x01" + new).decode()
    expected = f"example.com/log+{key_id}+{material}\n"
    assert cert("keys", "show", "--vkey", "example.com/log").out == expected
    for origin in ("", "a+b", "a b", "é"):
        ran = cert("keys", "show", "--vkey", origin)
        assert (ran.code, ran.out) == (2, "")


def test_one_way_to_print_at_a_time(cert: Program) -> None:
    cert("keys", "new")
    assert cert("keys", "show", "--json", "--pem").code == 2
    assert cert("keys", "show", "--pem", "--vkey", "x").code == 2


def test_no_command_prints_a_private_key(cert: Program, folder: Path) -> None:
    make_ledger(folder / "ledger")
    outputs = [
        cert("keys", *args)
        for args in (
            ("new",),
            ("show",),
            ("show", "--json"),
            ("show", "--pem"),
            ("rotate", "ledger"),
            ("show",),
        )
    ]
    everything = "".join(one.out + one.err for one in outputs)
    for path in own_keys().folder.glob("*.pem"):
        body = "".join(path.read_text().splitlines()[1:-1])
        assert body not in everything.replace("\n", "")
    assert "BEGIN PRIVATE" not in everything


def test_a_given_key_is_the_current_one(
    cert: Program, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = cert("keys", "new").out.strip()
    given = foreign_keys(folder / "given.pem").default().public
    monkeypatch.setenv("CERT_SIGNING_KEY", "given.pem")
    lines = cert("keys", "show").out.splitlines()
    assert lines[0] == f"current {given.text}"
    assert lines[2].endswith("the setting signing_key (environment CERT_SIGNING_KEY)")
    assert lines[3] == f"other   {other}"
    monkeypatch.setenv("CERT_SIGNING_KEY", "nowhere.pem")
    assert cert("keys", "show").code == 2


def test_a_damaged_store(cert: Program) -> None:
    cert("keys", "new")
    (own_keys().folder / "current").write_text("nobody")
    ran = cert("keys", "show")
    assert ran.code == 2
    assert "names no key" in ran.err


# Rotation


def test_rotate_makes_a_new_key_where_the_current_one_is_in_force(
    cert: Program, folder: Path
) -> None:
    make_ledger(folder / "ledger")
    old = own_keys().current()
    assert old is not None
    ran = cert("keys", "rotate", "ledger")
    assert ran.code == 0
    current = own_keys().current()
    assert current is not None
    assert ran.out == f"{current.text}\n"
    assert current != old
    assert f"record 4 passes example.com/tests on from {old.text} to {current.text}" in ran.err
    assert "send whoever verifies the new public key and a new head" in ran.err
    assert "CERT_SIGNING_KEY" not in ran.err
    for key in (old, current):
        assert cert("verify", "ledger", "--key", key.text, "--strict").code == 0
    # A key that is the current one already is taken, not another one made.
    newer = cert("keys", "new").out
    assert cert("keys", "rotate", "ledger").out == newer
    assert len(own_keys().all()) == 3
    assert cert("verify", "ledger", "--key", newer.strip()).code == 0


def test_rotate_to_a_given_key(
    cert: Program, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ledger(folder / "ledger")
    new = foreign_keys(folder / "new.pem").default().public
    ran = cert("keys", "rotate", "ledger", "--to", "new.pem")
    assert (ran.code, ran.out) == (0, f"{new.text}\n")
    assert "needs CERT_SIGNING_KEY" in ran.err
    assert cert("ledger", "note", "x", "ledger").code == 2
    monkeypatch.setenv("CERT_SIGNING_KEY", "new.pem")
    assert cert("ledger", "note", "x", "ledger").code == 0
    ran = cert("keys", "rotate", "ledger", "--to", "new.pem")
    assert ran.code == 2
    assert "signed by this key already" in ran.err
    assert cert("keys", "rotate", "ledger", "--to", "new.pub").code == 2
    assert cert("keys", "rotate", "ledger", "--to", "nowhere.pem").code == 2
    # From a given key back to one of the store.
    ran = cert("keys", "rotate", "ledger")
    assert ran.code == 0
    assert "needs CERT_SIGNING_KEY" in ran.err
    monkeypatch.delenv("CERT_SIGNING_KEY")
    assert cert("verify", "ledger", "--strict").code == 0


def test_rotate_without_the_key_in_force_changes_nothing(cert: Program, folder: Path) -> None:
    make_ledger(folder / "ledger", keys=foreign_keys(folder / "their.pem"))
    cert("keys", "new")
    before = [path.read_bytes() for path in sorted(Path("ledger").rglob("*.jsonl"))]
    ran = cert("keys", "rotate", "ledger")
    assert ran.code == 2
    assert "is not in" in ran.err
    assert len(own_keys().all()) == 1
    assert [path.read_bytes() for path in sorted(Path("ledger").rglob("*.jsonl"))] == before


def test_rotate_makes_no_ledger(cert: Program, folder: Path) -> None:
    assert cert("keys", "rotate", "nowhere").code == 2
    (folder / "empty").mkdir()
    ran = cert("keys", "rotate", "empty")
    assert ran.code == 2
    assert "is no ledger: it holds no records" in ran.err
    assert list((folder / "empty").iterdir()) == []
    assert cert("keys", "rotate").code == 2
    assert own_keys().all() == []
