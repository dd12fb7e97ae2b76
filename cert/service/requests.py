"""From the bytes of a request to what is asked for: strictly, and never a name of a file."""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import dataclass, replace
from difflib import get_close_matches
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from cert.assessment.policy import builtin_policy_ids, load_policy, parse_policy
from cert.core.errors import ConfigurationError, InvalidInput
from cert.inputs.case import PromptCase
from cert.inputs.ids import content_id
from cert.inputs.jsonl_rows import parse_object
from cert.inputs.options import ReadOptions
from cert.inputs.rows import build_row, decode_utf8, refuse
from cert.ledger.canonical import MAX_SAFE_INTEGER
from cert.service.problems import Problem
from cert.service.recorder import SOURCE
from cert.trajectory.texts import check_sampling

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cert.assessment.policy import Policy
    from cert.backends.protocol import SamplingParams
    from cert.inputs.case import RefusedInput
    from cert.inputs.rows import Row

MAX_TOKEN_IDS: Final = 8192
MAX_STOPS: Final = 64
MAX_STOP_CHARS: Final = 1000
SAMPLING_MEMBERS: Final = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop")
TEXT_MEMBERS: Final = ("prompt", "response", "id", "label", "group")
OPTION_MEMBERS: Final = ("timeout_s", "chat", "policy")

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_SAFE_INTEGER)]
_Stop = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_STOP_CHARS)]


class _Members(msgspec.Struct, frozen=True):
    """What a request may say beside its texts; None is the server's own."""

    max_new_tokens: _Count | None = None
    temperature: float | None = None
    top_k: _Count | None = None
    top_p: float | None = None
    seed: _Count | None = None
    stop: Annotated[list[_Stop], msgspec.Meta(max_length=MAX_STOPS)] | None = None
    timeout_s: float | None = None
    chat: Literal["auto", "always", "never"] | None = None


class _TokenIds(msgspec.Struct, frozen=True):
    token_ids: Annotated[list[_Count], msgspec.Meta(max_length=MAX_TOKEN_IDS)]


@dataclass(frozen=True, slots=True)
class Options:
    """How a prompt is measured and judged.

    Attributes:
        sampling: How tokens are chosen.
        timeout_s: Seconds from the submission on; None waits for ever.
        chat: `auto`, `always` or `never`.
        policy: What judges; None is the server's own.
    """

    sampling: SamplingParams
    timeout_s: float | None
    chat: str
    policy: Policy | None = None


def parse_analyze(
    body: bytes, defaults: Options, *, max_chars: int, line: int
) -> tuple[PromptCase | RefusedInput, Options]:
    """Parse the body of POST /v1/analyze.

    Args:
        body: One JSON object.
        defaults: In force where the request says nothing.
        max_chars: Limit of the prompt and of the response.
        line: Number of the request, which stands in the record as its line.

    Returns:
        The prompt, or the refusal to be recorded; and how to measure it.

    Raises:
        Problem: It is no such object; nothing is recorded.
    """
    values = _parse_json(body)
    _refuse_unknown(values, (*TEXT_MEMBERS, "sampling", *OPTION_MEMBERS))
    sampling = values.get("sampling")
    if sampling is None:
        sampling = {}
    if not isinstance(sampling, dict):
        raise _bad("sampling is not an object")
    _refuse_unknown(sampling, SAMPLING_MEMBERS, place="sampling: ")
    members: dict[str, object] = {**sampling}
    members |= {name: values[name] for name in OPTION_MEMBERS[:2] if name in values}
    options = _settle(_convert(members, strict=True), defaults)
    if (policy := values.get("policy")) is not None:
        options = replace(options, policy=resolve_policy(policy))
    return _build_case(values, max_chars=max_chars, line=line), options


def parse_batch_query(
    query: Sequence[tuple[str, str]], policy_header: str | None, defaults: Options
) -> Options:
    """Parse what POST /v1/batch says beside its lines.

    Args:
        query: The query's parameters, in order.
        policy_header: `Cert-Policy`: a policy document, JSON in base64.
        defaults: In force where the request says nothing.

    Raises:
        Problem: It is unknown, out of range, or said twice.
    """
    names = [name for name, _ in query]
    _refuse_unknown(names, (*SAMPLING_MEMBERS, *OPTION_MEMBERS), place="query: ")
    for name in names:
        if name != "stop" and names.count(name) > 1:
            raise _bad(f"query: {name} is given twice")
    members: dict[str, object] = {name: value for name, value in query if name != "stop"}
    if "stop" in names:
        members["stop"] = [value for name, value in query if name == "stop"]
    policy = members.pop("policy", None)
    options = _settle(_convert(members, strict=False), defaults)
    if policy_header is not None:
        if policy is not None:
            raise _bad("a policy is named in the query and given in Cert-Policy")
        policy = _decode_policy(policy_header)
    return options if policy is None else replace(options, policy=resolve_policy(policy))


def parse_tokens(body: bytes) -> list[int]:
    """Parse the body of POST /v1/tokens.

    Raises:
        Problem: It is no object of `token_ids`.
    """
    values = _parse_json(body)
    _refuse_unknown(values, ("token_ids",))
    try:
        return msgspec.convert(values, _TokenIds).token_ids
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from error


def resolve_policy(given: object) -> Policy:
    """A policy document, or the id of a policy that comes with the library.

    Raises:
        Problem: Neither; what could be a path is not looked at.
    """
    known = builtin_policy_ids()
    if isinstance(given, str):
        if given not in known:
            raise _bad(f"there is no policy {given[:64]!r}; built in: {', '.join(known)}")
        return load_policy(given)
    if not isinstance(given, dict):
        raise _bad("policy is neither an id nor a document")
    try:
        # JSON in ASCII is YAML, too; so there is one reader of policies.
        return parse_policy(json.dumps(given).encode(), source="policy")
    except ConfigurationError as error:
        raise _bad(error.message) from error


def _decode_policy(header: str) -> dict[str, object]:
    try:
        return parse_object(decode_utf8(base64.b64decode(header, validate=True)))
    except (binascii.Error, ValueError, InvalidInput) as error:
        reason = error.message if isinstance(error, InvalidInput) else str(error)
        raise _bad(f"Cert-Policy holds no JSON in base64: {reason}") from error


def _parse_json(body: bytes) -> dict[str, object]:
    try:
        return parse_object(decode_utf8(body))
    except InvalidInput as error:
        raise _bad(f"the body is {error.message}") from error


def _build_case(
    values: Mapping[str, object], *, max_chars: int, line: int
) -> PromptCase | RefusedInput:
    try:
        row = build_row(values, line, ReadOptions(max_chars=max_chars))
    except InvalidInput as error:
        return refuse(SOURCE, line, error)
    return case_of(row, content_id(row.prompt, row.response) if row.id is None else row.id)


def case_of(row: Row, identity: str) -> PromptCase:
    """The prompt of a row, under the id that it was given or that follows from it."""
    return PromptCase(
        id=identity,
        text=row.prompt,
        response=row.response,
        group=row.group,
        label=row.label,
        source=SOURCE,
        line=row.line,
    )


def _convert(members: Mapping[str, object], *, strict: bool) -> _Members:
    try:
        return msgspec.convert(dict(members), _Members, strict=strict)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from error


def _settle(members: _Members, defaults: Options) -> Options:
    given = {
        name: value for name in SAMPLING_MEMBERS if (value := getattr(members, name)) is not None
    }
    if "stop" in given:
        given["stop"] = tuple(given["stop"])
    sampling = replace(defaults.sampling, **given)
    chat = members.chat or defaults.chat
    timeout_s = defaults.timeout_s if members.timeout_s is None else members.timeout_s
    try:
        check_sampling(sampling, chat)
        for stop in sampling.stop:
            stop.encode()
    except ConfigurationError as error:
        raise _bad(error.message) from error
    except UnicodeEncodeError as error:
        raise _bad("a stop string holds a lone surrogate") from error
    if timeout_s is not None and not 0.0 < timeout_s < math.inf:
        raise _bad("timeout_s must be a number of seconds above 0")
    return Options(sampling, timeout_s, chat, defaults.policy)


def _refuse_unknown(names: Iterable[str], known: Sequence[str], *, place: str = "") -> None:
    for name in names:
        if name not in known:
            close = get_close_matches(name[:64], known, n=1)
            meant = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise _bad(f"{place}unknown member {name[:64]!r}; {meant}")


def _bad(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, detail)
