"""`cert serve`: the monitor as an HTTP API, its model in memory."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cert_cli.errors import run_command
from cert_cli.exit_codes import ExitCode
from cert_cli.options import NO_LEDGER
from cert_cli.texts import epilog

if TYPE_CHECKING:
    from cert.core.config import CERTConfig
    from cert_cli.interrupts import Interrupts

_option = partial(typer.Option, show_default=False)

EPILOG = epilog(
    "cert serve --model ./my-model --ledger ./ledger",
    "cert serve --host 0.0.0.0 --token-file /run/secrets/token --metrics-host 0.0.0.0",
    'curl --json \'{"prompt": "Once upon a time"}\' http://127.0.0.1:8000/v1/analyze',
    "cert batch prompts.txt --server http://127.0.0.1:8000 -o records.jsonl",
    codes=(
        ExitCode.USAGE,
        ExitCode.INCOMPLETE,
        ExitCode.INTEGRITY,
        ExitCode.UNAVAILABLE,
        ExitCode.BUG,
        ExitCode.INTERRUPTED,
        ExitCode.TERMINATED,
    ),
)


def serve(  # noqa: PLR0913 - one parameter a flag
    *,
    host: Annotated[
        str | None,
        _option(
            metavar="ADDRESS",
            help="Where the API listens; not loopback needs a token. [default: 127.0.0.1]",
        ),
    ] = None,
    port: Annotated[
        int | None, _option(metavar="N", help="0 takes a free one. [default: 8000]")
    ] = None,
    metrics_host: Annotated[
        str | None,
        _option(
            metavar="ADDRESS",
            help="Where metrics and health are served; not loopback needs a token. "
            "[default: 127.0.0.1]",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None, _option(metavar="N", help="0 takes a free one. [default: 9090]")
    ] = None,
    token_file: Annotated[
        Path | None,
        _option(metavar="FILE", help="Holds the bearer token that callers must show."),
    ] = None,
    max_requests: Annotated[
        int | None,
        _option(
            metavar="N",
            help="Requests that run or wait; the next one is refused with 429. [default: 64]",
        ),
    ] = None,
    max_body_bytes: Annotated[
        int | None,
        _option(
            metavar="N",
            help="Larger requests are refused; of a batch, larger lines. [default: 10485760]",
        ),
    ] = None,
    receive_timeout: Annotated[
        float | None,
        _option(metavar="SECONDS", help="In which a request must have arrived. [default: 10]"),
    ] = None,
    drain_timeout: Annotated[
        float | None,
        _option(metavar="SECONDS", help="That requests may go on after SIGTERM. [default: 30]"),
    ] = None,
    model: Annotated[
        str | None,
        _option(
            "--model",
            "-m",
            metavar="SPEC",
            help="`reference`, a folder, or hf:ORG/NAME. [default: reference]",
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        _option(help="Where the model runs. [default: auto]"),
    ] = None,
    quantize: Annotated[
        Literal["none", "8bit", "4bit"] | None,
        _option(help="Weights in fewer bits. [default: none]"),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None,
        _option(help="Precision of the weights. [default: auto]"),
    ] = None,
    expect_digest: Annotated[
        str | None,
        _option(metavar="sha256:HEX", help="Refuse any other model than the one of this digest."),
    ] = None,
    batch_rows: Annotated[
        int | None,
        _option(metavar="N", help="Prompts that run side by side. [default: 16]"),
    ] = None,
    policy: Annotated[
        str | None,
        _option(
            metavar="ID|FILE",
            help="Judges where a request names no other. [default: `reference` for the reference "
            "model, else `default`]",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        _option(
            metavar="N",
            help="As all flags down to --timeout, for requests that don't "
            "say: tokens to generate at most. [default: 64]",
        ),
    ] = None,
    temperature: Annotated[
        float | None, _option(metavar="T", help="0 is greedy. [default: 0]")
    ] = None,
    top_k: Annotated[
        int | None,
        _option(metavar="K", help="Sample among the K most probable; 0 is all. [default: 0]"),
    ] = None,
    top_p: Annotated[
        float | None,
        _option(metavar="P", help="Sample within this probability mass. [default: 1]"),
    ] = None,
    seed: Annotated[
        int | None,
        _option(metavar="N", help="Keys sampling; otherwise one is drawn and recorded."),
    ] = None,
    stop: Annotated[
        list[str] | None,
        _option(metavar="TEXT", help="End a generation before this text. Repeatable."),
    ] = None,
    chat: Annotated[
        Literal["auto", "always", "never"] | None,
        _option(help="Whether to apply the model's chat template. [default: auto]"),
    ] = None,
    timeout: Annotated[
        float | None,
        _option(metavar="SECONDS", help="Limit a prompt, from its submission on."),
    ] = None,
    content: Annotated[
        Literal["full", "committed", "omitted"] | None,
        _option(
            help="Whether records hold texts and token ids, commit to them, or leave them out. "
            "[default: full]"
        ),
    ] = None,
    ledger: Annotated[
        str | None,
        _option(
            metavar="DIR",
            help="Where the evidence goes; auto is the user's own folder. [default: auto]",
        ),
    ] = None,
    no_ledger: Annotated[
        bool, _option("--no-ledger", help="Keep no evidence but what callers get.")
    ] = False,
    config: Annotated[
        Path | None,
        _option(metavar="FILE", help="Settings, instead of ./cert.yaml or pyproject.toml."),
    ] = None,
    offline: Annotated[
        bool | None,
        _option(
            "--offline/--allow-download",
            help="Whether to stay off the network. [default: --offline]",
        ),
    ] = None,
    quiet: Annotated[bool, _option("--quiet", "-q", help="Log errors alone, no requests.")] = False,
    verbose: Annotated[int, _option("--verbose", "-v", count=True, help="Log more.")] = 0,
    log_format: Annotated[
        Literal["json", "human"] | None,
        _option(help="Of log lines on stderr. [default: json]"),
    ] = None,
    debug: Annotated[bool, _option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Serve the monitor over HTTP: prompts in, records out, the model in memory.

    Analyses that arrive together run together. Every reply is a record that is in the ledger
    already. Ctrl-C or SIGTERM finishes what was accepted, seals the ledger and ends; a second one
    ends at once. GET /openapi.json describes the API.
    """
    given: dict[str, object] = {
        "serve_host": host,
        "serve_port": port,
        "metrics_host": metrics_host,
        "metrics_port": metrics_port,
        "token_file": None if token_file is None else str(token_file),
        "max_requests": max_requests,
        "max_body_bytes": max_body_bytes,
        "receive_timeout": receive_timeout,
        "drain_timeout": drain_timeout,
        "model": model,
        "device": device,
        "quantize": quantize,
        "dtype": dtype,
        "batch_rows": batch_rows,
        "policy": policy,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "stop": stop or None,
        "chat": chat,
        "timeout": timeout,
        "content": content,
        "ledger": NO_LEDGER if no_ledger else ledger,
        "offline": offline,
        "log_format": log_format,
        "log_level": "ERROR" if quiet else "DEBUG" if verbose else None,
    }

    def body(interrupts: Interrupts) -> ExitCode:
        from cert.core.config import CERTConfig  # noqa: PLC0415 - not for --help

        settings = CERTConfig.load(given, config_file=config)
        settings.apply(stream=sys.stderr)
        return _serve(settings, expect_digest, interrupts)

    run_command(body, debug=debug)


def _serve(config: CERTConfig, expect_digest: str | None, interrupts: Interrupts) -> ExitCode:
    from cert.core.extras import missing_extra  # noqa: PLC0415 - the same
    from cert.service.access import load_token  # noqa: PLC0415 - the same
    from cert_cli.evidence import open_configured_ledger  # noqa: PLC0415 - the same

    try:
        from cert.service import server  # noqa: PLC0415 - the same
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("cert"):
            raise  # a bug, and no missing library
        raise missing_extra(f"serving needs {error.name}", "serve") from error
    token = load_token(config)
    with interrupts.deferred():
        binding = server.bind(config.serve_host, config.serve_port, token=token)
        with binding.socket, open_configured_ledger(config, quiet=True) as ledger:
            server.serve(
                config,
                binding,
                ledger,
                stop=lambda: interrupts.code,
                token=token,
                expect_digest=expect_digest,
            )
    assert interrupts.code is not None  # noqa: S101 - nothing else ends it
    return interrupts.code
