"""A running `cert serve`, used as if it were an engine in this process.

What comes back is not believed but checked: every line must be a record in canonical form, of the
prompt that was sent in its place, made by the model, policy and settings that were asked for.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec
import orjson

from cert.core.errors import CertError, ModelRefusedError
from cert.core.retry import retry
from cert.evidence.validation import Validation
from cert.inputs.case import RefusedInput
from cert.ledger.canonical import CanonicalError, parse_canonical
from cert.runner.pipeline import Outcome
from cert.runner.remote_batch import BUSY_RETRIES, MAX_BUSY_S, BatchCall, encode_line
from cert.runner.remote_errors import (
    ServerAnswerError,
    ServerBusyError,
    ServerRefusedError,
    not_a_server,
)
from cert.runner.remote_http import exchange
from cert.runner.resume import Expected, find_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from cert.assessment.policy import Policy
    from cert.inputs.case import PromptCase
    from cert.runner.remote_target import Target

    Case = PromptCase | RefusedInput

API: Final = 1
_KINDS: Final = {"analysis", "error", "refused"}
_DESCRIBE_TIMEOUT_S: Final = 30.0
_TOKENS_TIMEOUT_S: Final = 5.0


class ServedModel(msgspec.Struct, frozen=True):
    """The model behind a server: its name and the digest of its files."""

    name: str
    digest: str


class ServedPolicy(msgspec.Struct, frozen=True):
    """The policy that judges where a request brings none."""

    id: str
    digest: str


class Limits(msgspec.Struct, frozen=True):
    """What a server accepts: bytes of a line, characters of a prompt."""

    max_body_bytes: int
    max_prompt_chars: int


class ServerInfo(msgspec.Struct, frozen=True):
    """What GET /v1/server says, as far as a client acts on it.

    Attributes:
        cert: Version of the program that serves.
        model: What measures.
        policy: What judges where a request brings no policy.
        content: `full`, `committed` or `omitted`.
        ledger: Whether the server keeps evidence.
        sampling: How tokens are chosen where a request does not say.
        limits: What it accepts.
    """

    cert: str
    model: ServedModel
    policy: ServedPolicy
    content: str
    ledger: bool
    sampling: dict[str, Any]
    limits: Limits


@dataclass(frozen=True, slots=True)
class RemoteRequest:
    """What is asked for, for every prompt of a run; what is not given is the server's own.

    Attributes:
        sampling: Those parameters of sampling that are given, by name.
        timeout_s: Seconds a prompt may take.
        chat: `auto`, `always` or `never`.
        policy: What judges.
    """

    sampling: Mapping[str, object] = field(default_factory=dict)
    timeout_s: float | None = None
    chat: str | None = None
    policy: Policy | None = None


class RemoteServer:
    """One server, asked by one thread at a time."""

    def __init__(
        self, target: Target, *, token: str | None = None, correlation_id: str | None = None
    ) -> None:
        """Remember whom to ask; nothing is sent by that.

        Args:
            target: The server.
            token: Bearer token; stands in no message.
            correlation_id: Ties the server's records and log lines to ours.

        Raises:
            ServerRefusedError: The correlation id cannot be sent.
        """
        self._target = target
        self._validation = Validation()
        self._headers = {"accept": "application/json, application/x-ndjson"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        if correlation_id is not None:
            if not correlation_id.isascii() or correlation_id != correlation_id.strip():
                raise ServerRefusedError(
                    "the correlation id cannot be sent to a server",
                    hint="use ASCII without white space at its ends",
                )
            self._headers["x-correlation-id"] = correlation_id

    def describe(self) -> ServerInfo:
        """Ask the server what it is; one that loads its model is waited for, within bounds.

        Raises:
            ServerRefusedError: It is no `cert serve`, a newer one, or refuses the token.
            ServerUnavailableError: It cannot be reached, or stays busy.
        """
        again = retry(BUSY_RETRIES, exceptions=(ServerBusyError,), max_delay_s=MAX_BUSY_S)
        body = again(self._ask)("GET", "/v1/server", timeout_s=_DESCRIBE_TIMEOUT_S)
        try:
            said = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            raise not_a_server(self._target, "what it says is no JSON object") from None
        api = said.get("api", API)
        if api != API:
            raise ServerRefusedError(
                f"{self._target.url} speaks version {api!r:.20} of the API, this program {API}",
                hint="use the same version of cert on both sides",
            )
        try:
            return msgspec.convert(said, ServerInfo)
        except msgspec.ValidationError as error:
            raise not_a_server(self._target, str(error)) from error

    def split(self, token_ids: Sequence[int]) -> list[str] | None:
        """Ask for each token's share of a text; None where the server does not tell."""
        body = orjson.dumps({"token_ids": list(token_ids)})
        try:
            answer = self._ask("POST", "/v1/tokens", body=body, timeout_s=_TOKENS_TIMEOUT_S)
            pieces = msgspec.json.decode(answer, type=_Pieces).pieces
        except (CertError, msgspec.DecodeError):
            return None
        return pieces if len(pieces) == len(token_ids) else None

    def run_cases(
        self,
        cases: Iterator[Case],
        request: RemoteRequest,
        info: ServerInfo,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Generator[Outcome, None, None]:
        """Yield one outcome a case, in input order, as `cert.runner.pipeline.run_cases` does.

        Args:
            cases: The input; advanced by a thread of its own from the first outcome on.
            request: The same for every prompt.
            info: From `describe`.
            stopped: Asked between records. Once true, nothing more is sent, and the records that
                have come are the last ones.

        Raises:
            ServerUnavailableError: The server, or the way to it, failed; the outcomes before are
                complete.
            Exception: Whatever reading the input raised, after the outcomes of all lines before it.
        """
        expected = expect(request, info)
        path = f"/v1/batch{_query(request)}"
        call = BatchCall(self._target, path, {**self._headers, **_policy(request)}, cases)
        call.start()
        try:
            while (answer := call.next_answer(stopped)) is not None:
                case, line = answer
                record = self._check(case, line, expected, info.model.digest)
                yield Outcome(case, None, record, line)
        finally:
            call.close()

    def _ask(self, method: str, path: str, *, body: bytes = b"", timeout_s: float) -> bytes:
        headers = {**self._headers, "content-type": "application/json"} if body else self._headers
        asking = exchange(self._target, method, path, headers, body=body, timeout_s=timeout_s)
        return asyncio.run(asking)

    def _check(
        self, case: Case, line: bytes, expected: Expected, model_digest: str
    ) -> dict[str, Any]:
        """Read a record, and make sure that it is what was asked for."""
        where = f"{case.source}:{case.line}"
        try:
            record: dict[str, Any] = parse_canonical(line)
        except CanonicalError as error:
            raise self._wrong(where, f"no record ({error.message})") from error
        kind = str(record.get("kind"))
        fault = self._validation.fault_of(record, kind)
        if fault is not None or kind not in _KINDS:
            raise self._wrong(where, f"no record of a prompt ({fault or kind})")
        difference = find_difference(record, case, expected)
        digest = (record.get("provenance") or {}).get("model", {}).get("digest")
        if difference is None and digest not in {None, model_digest}:
            difference = "another model measured"
        if difference is not None:
            raise self._wrong(where, f"another record than was asked for ({difference})")
        return record

    def _wrong(self, where: str, what: str) -> ServerAnswerError:
        return ServerAnswerError(
            f"{self._target.url} answered {where} with {what}",
            hint="use the same version of cert on both sides",
        )


class _Pieces(msgspec.Struct, frozen=True):
    pieces: list[str]


def check_digest(info: ServerInfo, expected: str | None, target: Target) -> None:
    """Compare the model behind a server with the one that was asked for.

    Raises:
        ModelRefusedError: They differ.
    """
    if expected not in {None, info.model.digest}:
        raise ModelRefusedError(
            f"the model of {target.url} has the digest {info.model.digest}, expected {expected}"
        )


def expect(request: RemoteRequest, info: ServerInfo) -> Expected:
    """What every record of a run must have been made with."""
    policy = info.policy if request.policy is None else request.policy
    return Expected(
        policy_digest=policy.digest,
        sampling={**info.sampling, **request.sampling},
        content=info.content,
    )


def within_limits(cases: Iterator[Case], limits: Limits) -> Iterator[Case]:
    """Refuse here what the server would refuse for the length of its line."""
    for case in cases:
        size = len(encode_line(case))
        if isinstance(case, RefusedInput) or size <= limits.max_body_bytes:
            yield case
        else:
            reason = f"{size:,} bytes as sent; the server accepts {limits.max_body_bytes:,}"
            yield RefusedInput(case.source, case.line, "PromptTooLong", reason)


def _query(request: RemoteRequest) -> str:
    asked: dict[str, object] = {**request.sampling}
    if request.timeout_s is not None:
        asked["timeout_s"] = request.timeout_s
    if request.chat is not None:
        asked["chat"] = request.chat
    return f"?{urlencode(asked, doseq=True)}" if asked else ""


def _policy(request: RemoteRequest) -> dict[str, str]:
    if request.policy is None:
        return {}
    document = orjson.dumps(msgspec.to_builtins(request.policy))
    return {"cert-policy": base64.b64encode(document).decode()}
