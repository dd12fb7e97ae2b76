"""`cert completion`: a script that lets a shell complete commands and flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cert_cli.errors import run_command
from cert_cli.texts import PRINT_CODES, epilog

if TYPE_CHECKING:
    from cert_cli.exit_codes import ExitCode
    from cert_cli.interrupts import Interrupts

COMPLETE_VARIABLE = "_CERT_COMPLETE"
"""Where the scripts say what they want completed."""

EPILOG = epilog(
    "cert completion bash > ~/.local/share/bash-completion/completions/cert",
    'cert completion zsh > "${fpath[1]}/_cert"',
    "cert completion fish > ~/.config/fish/completions/cert.fish",
    codes=PRINT_CODES,
)


def completion(
    *,
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.")],
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Print a shell's completion script."""

    def body(_: Interrupts) -> ExitCode:
        import typer.completion  # noqa: PLC0415 - not for --help

        from cert_cli.stdout import print_text  # noqa: PLC0415 - the same

        # Typer's own, which it offers through a flag on every command only.
        script: str = typer.completion.get_completion_script(  # type: ignore[attr-defined]
            prog_name="cert", complete_var=COMPLETE_VARIABLE, shell=shell
        )
        return print_text(script + "\n")

    run_command(body, debug=debug)
