"""`cert keys`: the keys that ledgers are signed with."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from cert_cli import arguments as flags  # noqa: TC001 - Typer reads the annotations
from cert_cli.errors import report, run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from cert.core.config import CERTConfig
    from cert.ledger.keys import PublicKey
    from cert_cli.interrupts import Interrupts

_CODES = (ExitCode.PASS, ExitCode.USAGE, ExitCode.INCOMPLETE, ExitCode.INTEGRITY)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, show and change the keys that ledgers are signed with.",
)


@app.callback()
def keys() -> None:
    """Make, show and change the keys that ledgers are signed with."""


@app.command(
    "new",
    epilog=epilog(
        "cert keys new",
        "cert keys new --password",
        "cert keys new --keys /etc/cert/keys",
        codes=_CODES,
    ),
)
def new(
    *,
    password: Annotated[
        bool,
        typer.Option(
            "--password",
            help="Encrypt it: by CERT_KEY_PASSWORD, else by a password that is asked for.",
        ),
    ] = False,
    keys: flags.KeysOption = None,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """Make a signing key and make it the current one; prints its public half.

    New ledgers begin with the current key. A ledger that is there goes on with its own until
    `cert keys rotate`. Keys that were made before stay.
    """

    def body(_: Interrupts) -> ExitCode:
        from cert.core.places import keys_folder  # noqa: PLC0415 - not for --help
        from cert.ledger.key_store import (  # noqa: PLC0415 - the same
            KeyStore,
            password_from_environment,
        )
        from cert_cli.password import ask_twice  # noqa: PLC0415 - the same
        from cert_cli.settings import load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

        settings = load_settings(config, keys=keys)
        secret = password_from_environment()
        if secret is None and password:
            secret = ask_twice()
        store = KeyStore(keys_folder(settings.keys))
        public = store.create(secret).public
        code = print_text(f"{public.text}\n")
        how = "unencrypted, readable by you alone" if secret is None else "encrypted"
        report(
            f"note: the private key is {store.path_of(public)} ({how}); it is the current one now",
            hint="back it up; give the public half to whoever verifies: cert keys show --pem",
        )
        return code

    run_command(body, debug=debug)


@app.command(
    "show",
    epilog=epilog(
        "cert keys show",
        "cert keys show --pem > public-key.pem",
        "cert keys show --json | jq -r '.keys[].fingerprint'",
        codes=_CODES,
    ),
)
def show(  # noqa: PLR0913 - one parameter a flag
    *,
    as_json: flags.JsonOption = False,
    pem: Annotated[
        bool, typer.Option("--pem", help="The current public key, as openssl reads it.")
    ] = False,
    vkey: Annotated[
        str | None,
        typer.Option(
            metavar="ORIGIN",
            show_default=False,
            help="The current public key as a C2SP verifier key of a ledger's name, for witnesses.",
        ),
    ] = None,
    keys: flags.KeysOption = None,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """Print the public halves of the signing keys, the current one first; never a private key."""

    def body(_: Interrupts) -> ExitCode:
        from cert.core.errors import ConfigurationError  # noqa: PLC0415 - not for --help
        from cert_cli.settings import load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

        if as_json + pem + (vkey is not None) > 1:
            raise ConfigurationError("--json, --pem and --vkey are three ways to print: choose one")
        found = _find_keys(load_settings(config, keys=keys))
        if not found:
            raise ConfigurationError("there is no signing key yet", hint="cert keys new makes one")
        if as_json:
            entries = [
                {
                    "key": key.text,
                    "fingerprint": key.fingerprint,
                    "path": path,
                    "is_current": number == 0,
                }
                for number, (key, path) in enumerate(found)
            ]
            return print_text(json.dumps({"keys": entries}, indent=2) + "\n")
        current = found[0][0]
        if pem:
            return print_text(current.pem.decode())
        if vkey is not None:
            return print_text(_verifier_key(vkey, current))
        lines = []
        for number, (key, path) in enumerate(found):
            lines.append(f"{'current' if number == 0 else 'other':<8}{key.text}")
            lines.append(f"{'':<8}fingerprint {key.fingerprint}")
            lines.append(f"{'':<8}private key {path}")
        return print_text("\n".join(lines) + "\n")

    run_command(body, debug=debug)


@app.command(
    "rotate",
    epilog=epilog("cert keys rotate", "cert keys rotate ./ledger --to new-key.pem", codes=_CODES),
)
def rotate(
    ledger: flags.LedgerArgument = None,
    *,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            show_default=False,
            help="The private key to pass the ledger on to. [default: the current key; a new one "
            "where the ledger is signed by that already]",
        ),
    ] = None,
    keys: flags.KeysOption = None,
    config: flags.ConfigOption = None,
    debug: flags.DebugOption = False,
) -> None:
    """Pass a ledger on to another key; prints the new public key.

    A record signed by both keys says so. Whoever pinned the old key still trusts the ledger, and
    should pin the new one.
    """

    def body(_: Interrupts) -> ExitCode:
        from cert_cli.rotation import rotate as rotate_ledger  # noqa: PLC0415 - not for --help
        from cert_cli.settings import find_ledger, load_settings  # noqa: PLC0415 - the same
        from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

        settings = load_settings(config, keys=keys)
        public, note = rotate_ledger(find_ledger(ledger, settings), settings, to)
        code = print_text(f"{public.text}\n")
        report(f"note: {note}")
        report(
            "note: send whoever verifies the new public key and a new head",
            hint="cert keys show --pem > public-key.pem; cert ledger head > head.note",
        )
        return code

    run_command(body, debug=debug)


def _find_keys(settings: CERTConfig) -> list[tuple[PublicKey, str]]:
    """All public keys and where their private halves are, the current one first."""
    from cert.core.places import keys_folder  # noqa: PLC0415 - not for --help
    from cert.ledger.key_store import GivenKey, KeyStore  # noqa: PLC0415 - the same

    store = KeyStore(keys_folder(settings.keys))
    current = store.current()
    own = [*([] if current is None else [current]), *store.all()]
    found = {key: str(store.path_of(key)) for key in own}
    if settings.signing_key is None:
        return list(found.items())
    given = GivenKey.load(settings.signing_key).default().public
    where = f"the setting signing_key ({settings.origins()['signing_key']})"
    return list(({given: where} | found).items())


def _verifier_key(origin: str, key: PublicKey) -> str:
    """Write a key as C2SP signed-note has it."""
    import base64  # noqa: PLC0415 - not for --help

    from cert.core.errors import ConfigurationError  # noqa: PLC0415 - the same
    from cert.ledger.checkpoint import is_origin, key_id_of  # noqa: PLC0415 - the same

    if not is_origin(origin):
        raise ConfigurationError(
            f"--vkey {origin}: a ledger's name has 1 to 255 printable ASCII characters, no space "
            "and no +",
            hint="`cert ledger ls` shows it",
        )
    material = base64.b64encode(b"\x01" + key.raw).decode()
    return f"{origin}+{key_id_of(origin, key).hex()}+{material}\n"
