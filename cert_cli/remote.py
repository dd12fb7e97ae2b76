"""A server that measures: how a session uses it (--server, CERT_SERVER)."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from cert.assessment.policy import load_policy
from cert.core.config_sources import DEFAULT, FLAG
from cert.core.errors import ConfigurationError
from cert.runner.remote import (
    RemoteRequest,
    RemoteServer,
    check_digest,
    expect,
    within_limits,
)
from cert.runner.remote_target import parse_server_url
from cert.service.access import is_loopback, load_token
from cert_cli.errors import report

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import ExitStack

    from cert.core.config import CERTConfig
    from cert.runner.pipeline import Outcome
    from cert.runner.resume import Expected
    from cert_cli.options import SharedFlags
    from cert_cli.session import Cases, Job

SERVERS_OWN: Final = {
    "model": "--model",
    "preload": "--preload/--no-preload",
    "device": "--device",
    "quantize": "--quantize",
    "dtype": "--dtype",
    "content": "--content",
    "ledger": "--ledger/--no-ledger",
    "offline": "--offline/--allow-download",
    "batch_rows": "--batch-rows",
}
"""Settings that are decided where the model is; their flags have no meaning beside a server."""

_SAMPLING: Final = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop")


class RemoteInstrument:
    """A running `cert serve`."""

    def __init__(self, url: str, flags: SharedFlags, config: CERTConfig) -> None:
        """Ask the server what it is.

        Raises:
            ConfigurationError: Flags that belong to the server were given, the URL, the token or
                the policy is not usable, or the server is none of ours.
            ModelUnavailableError: The server cannot be reached, or has another model than asked.
        """
        refuse_servers_flags(config)
        target = parse_server_url(url)
        token = load_token(config)
        self._request = _request(config)
        self._max_prompt_chars = config.max_prompt_chars
        if token is not None and not target.is_tls and not is_loopback(target.host):
            report(f"warning: the token goes to {target.url} unencrypted", hint="use https://")
        self._server = RemoteServer(target, token=token, correlation_id=flags.correlation_id)
        self._info = self._server.describe()
        check_digest(self._info, flags.expect_digest, target)
        if not flags.quiet:
            keeps = "its ledger keeps the records" if self._info.ledger else "it keeps no ledger"
            report(f"note: {target.url} measures, with {self._info.model.name}; {keeps}")

    @property
    def max_prompt_chars(self) -> int:
        """Longer prompts are refused, here or there."""
        return min(self._max_prompt_chars, self._info.limits.max_prompt_chars)

    @property
    def expected(self) -> Expected:
        """What the records will have been made with."""
        return expect(self._request, self._info)

    def admit(self, cases: Cases) -> Cases:
        """Refuse here what the server would refuse for its length."""
        return within_limits(cases, self._info.limits)

    def open_evidence(self, job: Job, stack: ExitStack) -> None:
        """None: the evidence is in the server's ledger."""

    def begin(self) -> None:
        """Nothing: the server has its model."""

    def model_digest(self) -> str:
        """What the server says."""
        return self._info.model.digest

    def run_in_groups(
        self,
        cases: Cases,
        run_id: str,  # noqa: ARG002 - the server draws its own
        *,
        stopped: Callable[[], bool],
    ) -> Generator[list[Outcome], None, None]:
        """Let the server measure; one outcome a group, as `RemoteServer.run_cases` yields them."""
        answers = self._server.run_cases(cases, self._request, self._info, stopped=stopped)
        with closing(answers):
            for outcome in answers:
                yield [outcome]

    def split(self, token_ids: Sequence[int]) -> list[str] | None:
        """Each token's share of the text, by the server's tokenizer."""
        return self._server.split(token_ids)


def refuse_servers_flags(config: CERTConfig) -> None:
    """Refuse flags that the server would have needed at its own start.

    Raises:
        ConfigurationError: Names them.
    """
    origins = config.origins()
    given = [flag for name, flag in SERVERS_OWN.items() if origins[name] == FLAG]
    if given:
        raise ConfigurationError(
            f"{', '.join(given)}: decided by the server ({origins['server']}), not by its clients",
            hint="leave them out, or measure here: without --server and CERT_SERVER",
        )


def _request(config: CERTConfig) -> RemoteRequest:
    """What is asked for: what somebody has set. The server has defaults of its own."""
    origins = config.origins()
    given = {name: getattr(config, name) for name in _SAMPLING if origins[name] != DEFAULT}
    if "stop" in given:
        given["stop"] = list(config.stop)
    return RemoteRequest(
        sampling=given,
        timeout_s=config.timeout,
        chat=None if origins["chat"] == DEFAULT else config.chat,
        policy=None if config.policy is None else load_policy(config.policy),
    )
