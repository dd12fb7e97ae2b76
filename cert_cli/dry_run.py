"""`--dry-run`: what a run would take, without a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cert.core.errors import CertError, InvalidInput
from cert.core.resources import read_memory
from cert.inputs.case import RefusedInput
from cert.runner.estimate import Load, estimate, probe
from cert_cli.exit_codes import ExitCode
from cert_cli.stdout import print_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cert.backends.folder import ModelFolder
    from cert.backends.tokenization import Tokenization
    from cert.core.config import CERTConfig
    from cert.inputs.case import PromptCase

_SHOWN_REFUSALS = 10
_MIB = 2**20


@dataclass(slots=True)
class _Count:
    """What came in; memory does not grow with it but by the number of sources."""

    prompts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    shown: list[RefusedInput] = field(default_factory=list)
    generated: int = 0
    unusable: int = 0
    prompt_tokens: int = 0
    scored_tokens: int = 0


def describe_run(cases: Iterable[PromptCase | RefusedInput], config: CERTConfig) -> ExitCode:
    """Print counts and estimates.

    Returns:
        PASS, or NOTHING where no prompt came in.
    """
    lines: list[str] = []
    folder, tokenization = None, None
    if config.server is not None:
        lines.append(f"server    {_shown_server(config)}")
    else:
        try:
            folder, tokenization = _open_model(config)
        except CertError as error:
            lines.append(f"model     {config.model}: {error.message}")
    count = _count(cases, tokenization, config.chat)
    lines += [
        f"input     {source}: {count.prompts[source]} prompts, {count.refused[source]} refused"
        for source in sorted({*count.prompts, *count.refused})
    ]
    lines += [f"refused   {one.source}:{one.line}: {one.message}" for one in count.shown]
    hidden = count.refused.total() - len(count.shown)
    if hidden:
        lines.append(f"refused   and {hidden} more")
    if folder is not None and tokenization is not None:
        lines += _describe_load(count, folder, config)
    lines.append("nothing was run, and nothing was written")
    print_text("".join(f"{_line(one)}\n" for one in lines))
    return ExitCode.PASS if count.prompts else ExitCode.NOTHING


def _shown_server(config: CERTConfig) -> str:
    """Say what would be asked of a server.

    Raises:
        ConfigurationError: Its URL is not usable, or flags belong to it.
    """
    from cert.runner.remote_target import parse_server_url  # noqa: PLC0415 - only here
    from cert_cli.remote import refuse_servers_flags  # noqa: PLC0415 - the same

    refuse_servers_flags(config)
    url = parse_server_url(config.server or "").url
    return f"{url} would be asked (POST /v1/batch) and was not; tokens and time are unknown here"


def _open_model(config: CERTConfig) -> tuple[ModelFolder, Tokenization]:
    """Read the headers of the weights and the tokenizer; nothing is fetched for a dry run."""
    from cert.backends.folder import inspect_folder, resolve_model  # noqa: PLC0415 - only here
    from cert.backends.manifest import hash_files  # noqa: PLC0415 - the same
    from cert.backends.tokenization import load_tokenization  # noqa: PLC0415 - the same

    folder = inspect_folder(resolve_model(config.model, aliases=config.model_aliases))
    files = hash_files(folder.path, folder.tokenizer_files)
    size = folder.config.get("vocab_size")
    limit = size if isinstance(size, int) else 2**31
    return folder, load_tokenization(folder, vocab_size=limit, files=files)


def _count(
    cases: Iterable[PromptCase | RefusedInput], tokenization: Tokenization | None, chat: str
) -> _Count:
    count = _Count()
    for case in cases:
        if isinstance(case, RefusedInput):
            count.refused[case.source] += 1
            if len(count.shown) < _SHOWN_REFUSALS:
                count.shown.append(case)
            continue
        count.prompts[case.source] += 1
        if case.response is None:
            count.generated += 1
        if tokenization is None:
            continue
        try:
            count.prompt_tokens += len(tokenization.encode_prompt(case.text, chat=chat))
            if case.response is not None:
                count.scored_tokens += len(tokenization.encode_response(case.response))
        except InvalidInput:
            count.unusable += 1
    return count


def _describe_load(count: _Count, folder: ModelFolder, config: CERTConfig) -> list[str]:
    new_tokens = count.generated * config.max_new_tokens
    tokens = (
        f"tokens    {count.prompt_tokens} of prompts, {count.scored_tokens} of responses "
        f"(by the model's tokenizer), at most {new_tokens} to generate "
        f"({count.generated} prompts times --max-new-tokens {config.max_new_tokens})"
    )
    lines = [tokens]
    if count.unusable:
        lines.append(f"errors    {count.unusable} prompts cannot be encoded for this model")
    load = Load(count.prompt_tokens, count.scored_tokens, new_tokens, config.batch_rows)
    machine = probe()
    guess = estimate(folder, load, machine, dtype=config.dtype, quantize=config.quantize)
    cache = "unknown" if guess.cache_bytes is None else _mib(guess.cache_bytes)
    free = read_memory().available_bytes
    memory = (
        f"memory    weights {_mib(guess.weights_bytes)} ({guess.parameters} parameters in the "
        f"headers of the weights), cache up to {cache} ({config.batch_rows} rows at full context); "
        f"available here: {'unknown' if free is None else _mib(free)}"
    )
    duration = (
        f"time      about {guess.duration_s:.3g} s on this CPU if every text has its full length: "
        f"a matrix product of 16 rows ran at {machine.flop_per_s / 1e9:.0f} GFLOP/s, memory at "
        f"{machine.bytes_per_s / 1e9:.0f} GB/s just now; attention and start-up are left out, and "
        "a GPU is not looked at"
    )
    return [*lines, memory, duration]


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f} MiB"


def _line(text: str) -> str:
    from cert.observability.controls import escape_controls  # noqa: PLC0415 - beside its use

    return escape_controls(text)
