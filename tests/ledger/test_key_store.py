"""Where keys come from: the user's folder, a key that was given, and the configuration."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cert.core.config import CERTConfig
from cert.core.places import keys_folder, known_keys_file, ledger_folder
from cert.ledger.errors import SigningKeyError
from cert.ledger.key_source import keys_of
from cert.ledger.key_store import GivenKey, KeyStore, password_from_environment
from cert.ledger.keys import Signer
from tests.ledger.ledgers import open_files, private

ONE, TWO = Signer(private("first")), Signer(private("second"))


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CERT_KEY_PASSWORD", raising=False)


def test_an_empty_folder_has_no_keys(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        store = KeyStore(folder)
        assert (store.current(), store.all()) == (None, [])
        with pytest.raises(SigningKeyError, match="is not in") as caught:
            store.find(ONE.public)
        assert "CERT_SIGNING_KEY" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_the_first_use_makes_a_key_and_says_so(tmp_path: Path) -> None:
    told: list[Signer] = []
    store = KeyStore(tmp_path / "a" / "keys", created=told.append)
    signer = store.default()
    assert [one.public for one in told] == [signer.public]
    # From then on it is the current one.
    assert store.default().public == store.current() == signer.public
    assert KeyStore(store.folder).default().public == signer.public
    assert len(told) == 1
    names = {path.name: path.stat().st_mode & 0o777 for path in store.folder.iterdir()}
    fingerprint = signer.public.fingerprint
    assert names == dict.fromkeys([f"{fingerprint}.pem", f"{fingerprint}.pub", "current"], 0o600)
    assert store.folder.stat().st_mode & 0o777 == 0o700


def test_keys_are_those_that_openssl_reads(tmp_path: Path) -> None:
    signer = KeyStore(tmp_path).create(b"secret")
    path = str(KeyStore(tmp_path).path_of(signer.public))
    command = ["openssl", "pkey", "-in", path, "-passin", "pass:secret", "-pubout"]
    said = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert said == Path(path).with_suffix(".pub").read_bytes() == signer.public.pem


def test_old_keys_stay(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    made = [store.create(None).public for _ in range(3)]
    assert store.current() == made[-1]
    assert store.all() == sorted(made, key=lambda key: key.fingerprint)
    assert [store.find(key).public for key in made] == made
    (tmp_path / "notes.pub").write_text("of no interest")
    assert len(store.all()) == 3


def test_an_encrypted_key_takes_the_password_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERT_KEY_PASSWORD", "secret")
    assert password_from_environment() == b"secret"
    store = KeyStore(tmp_path)
    signer = store.default()
    assert b"ENCRYPTED" in store.path_of(signer.public).read_bytes()
    assert store.find(signer.public).public == signer.public
    monkeypatch.setenv("CERT_KEY_PASSWORD", "wrong")
    with pytest.raises(SigningKeyError, match="wrong password"):
        store.default()
    monkeypatch.setenv("CERT_KEY_PASSWORD", "")
    assert password_from_environment() is None
    with pytest.raises(SigningKeyError, match="is encrypted"):
        store.default()


def test_a_folder_that_is_damaged_is_told_of_and_left_alone(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    public = store.create(None).public
    pub, current = tmp_path / f"{public.fingerprint}.pub", tmp_path / "current"
    pub.write_bytes(ONE.public.pem)
    with pytest.raises(SigningKeyError, match="holds another key than its name says"):
        store.current()
    pub.write_bytes(b"x")
    with pytest.raises(SigningKeyError, match="is no public key"):
        store.all()
    pub.unlink()
    with pytest.raises(SigningKeyError, match="is missing"):
        store.default()
    for content in (b"", b"../x", b"\xff" * 64, b"A" * 64, b"a" * 64 + b"\nmore"):
        current.write_bytes(content)
        with pytest.raises(SigningKeyError, match="names no key"):
            store.default()
    store.path_of(public).write_bytes(b"x")
    with pytest.raises(SigningKeyError, match="no PEM private key"):
        store.find(public)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{public.fingerprint}.pem", "current"}


def test_a_key_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SigningKeyError, match=r"cannot be written to .*: Not a dir") as caught:
        KeyStore(tmp_path / "file" / "keys").create(None)
    assert "CERT_KEYS" in str(caught.value.hint)


def test_links_folders_and_pipes_are_no_keys(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    path = store.path_of(ONE.public)
    (tmp_path / "elsewhere").write_bytes(ONE.to_pem())
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SigningKeyError, match="cannot be read: Too many levels of symbolic links"):
        store.find(ONE.public)
    path.unlink()
    path.mkdir()
    before = open_files()
    with pytest.raises(SigningKeyError, match="cannot be read: Is a directory"):
        store.find(ONE.public)
    assert open_files() == before
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(SigningKeyError, match="no PEM private key"):
        store.find(ONE.public)


def test_a_key_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(ONE.to_pem())
    for given in (str(path), ONE.to_pem().decode(), "\n  " + ONE.to_pem().decode()):
        key = GivenKey.load(given)
        assert key.default().public == key.find(ONE.public).public == ONE.public
        with pytest.raises(SigningKeyError, match=r"ledger is signed by .*, the given key is"):
            key.find(TWO.public)
    path.write_bytes(ONE.to_pem(b"secret"))
    with pytest.raises(SigningKeyError, match="is encrypted"):
        GivenKey.load(str(path))
    monkeypatch.setenv("CERT_KEY_PASSWORD", "secret")
    assert GivenKey.load(str(path)).default().public == ONE.public
    assert GivenKey.load(ONE.to_pem(b"secret").decode()).default().public == ONE.public


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("missing.pem", "neither PEM nor a file"),
        ("a\0b", "neither PEM nor a file"),
        ("x" * 5000, "File name too long"),
        ("/", "Is a directory"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA", "the signing key given cannot be read"),
    ],
)
def test_a_given_key_that_is_none(given: str, why: str) -> None:
    with pytest.raises(SigningKeyError, match=why):
        GivenKey.load(given)


def test_what_may_be_a_key_is_not_shown(tmp_path: Path) -> None:
    body = ONE.to_pem().decode().splitlines()[1]
    with pytest.raises(SigningKeyError) as caught:
        GivenKey.load(f"-----BEGIN PRIVATE KEY-----\\n{body}\\n-----END PRIVATE KEY-----")
    assert body not in str(caught.value)
    assert body not in str(caught.value.hint)


def test_the_configuration_says_which_keys(tmp_path: Path) -> None:
    told: list[Signer] = []
    config = CERTConfig(keys=str(tmp_path / "keys"))
    assert keys_of(config, created=told.append).default().public == told[0].public
    assert KeyStore(tmp_path / "keys").current() == told[0].public
    # A given key wins, and makes none.
    (tmp_path / "key.pem").write_bytes(ONE.to_pem())
    config = CERTConfig(keys=str(tmp_path / "other"), signing_key=str(tmp_path / "key.pem"))
    assert keys_of(config, created=told.append).default().public == ONE.public
    assert not (tmp_path / "other").exists()
    assert len(told) == 1
    with pytest.raises(SigningKeyError, match="neither PEM nor a file"):
        keys_of(CERTConfig(signing_key=str(tmp_path / "missing")))


def test_places_are_those_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    assert ledger_folder("auto") == Path("/state/cert/ledger")
    assert ledger_folder("none") is None
    assert ledger_folder("./none") == Path("none")
    assert ledger_folder("/x/auto") == Path("/x/auto")
    assert keys_folder(None) == Path("/config/cert/keys")
    assert keys_folder("mine") == Path("mine")
    assert known_keys_file() == Path("/config/cert/known-keys.json")
