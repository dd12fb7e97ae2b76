"""POST /v1/analyze: one prompt, one record."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from cert.core.errors import AnalysisError, GenerationCancelled
from cert.inputs.case import RefusedInput
from cert.observability.correlation import get_correlation_id
from cert.runner.pipeline import RunSettings, build_outcome, build_refusal
from cert.service.body import read_body, wait_until_gone
from cert.service.core import require_type
from cert.service.recorder import Run
from cert.service.requests import parse_analyze

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from starlette.requests import Request

    from cert.inputs.case import PromptCase
    from cert.service.core import Core
    from cert.service.requests import Options
    from cert.trajectory.types import AnalysisResult

    Result = AnalysisResult | AnalysisError

_STATUS_BY_ERROR: Final = {
    "InvalidInput": HTTPStatus.UNPROCESSABLE_ENTITY,
    "PromptTooLong": HTTPStatus.UNPROCESSABLE_ENTITY,
    "GenerationTimeout": HTTPStatus.GATEWAY_TIMEOUT,
    "ModelNotLoaded": HTTPStatus.SERVICE_UNAVAILABLE,
    "ModelUnavailableError": HTTPStatus.SERVICE_UNAVAILABLE,
    "ModelRefusedError": HTTPStatus.SERVICE_UNAVAILABLE,
    "GPUOutOfMemoryError": HTTPStatus.SERVICE_UNAVAILABLE,
    "CPUFallbackFailed": HTTPStatus.SERVICE_UNAVAILABLE,
    "GenerationCancelled": HTTPStatus.SERVICE_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class _Job:
    """A request on its way: its run is open, its prompt is in the engine unless it was refused."""

    case: PromptCase | RefusedInput
    options: Options
    run: Run
    measuring: Future[Result] | None


async def analyze(core: Core, request: Request) -> Response:
    """Measure a prompt, record it, and answer with the record.

    Raises:
        Problem: The request gets no record.
        ClientGoneError: The client left before its request was complete.
        LedgerError: The ledger does not take the record.
    """
    require_type(request, "application/json")
    config = core.config
    body = await read_body(
        request, limit_bytes=config.max_body_bytes, timeout_s=config.receive_timeout
    )
    with ExitStack() as stack:
        job = await core.in_thread(_submit, core, body, next(core.numbers), stack)
        result = None if job.measuring is None else await _wait(core, job.measuring, request)
        line, status = await core.in_thread(_record, core, job, result)
    return Response(line, status_code=status, media_type="application/json")


def _submit(core: Core, body: bytes, number: int, stack: ExitStack) -> _Job:
    """Parse; open a run of its own where another policy judges; queue the prompt."""
    case, options = parse_analyze(
        body, core.defaults, max_chars=core.config.max_prompt_chars, line=number
    )
    correlation_id = get_correlation_id() or ""
    run = core.run
    if not core.is_own(options.policy):
        run = stack.enter_context(Run(core.recorder))
        policy = options.policy or core.engine.policy
        run.begin("analyze", policy, options.sampling, correlation_id)
    if isinstance(case, RefusedInput):
        return _Job(case, options, run, None)
    measuring = core.engine.submit(
        case,
        sampling=options.sampling,
        timeout=options.timeout_s,
        chat=options.chat,
        policy=options.policy,
        correlation_id=correlation_id,
    )
    return _Job(case, options, run, measuring)


async def _wait(core: Core, measuring: Future[Result], request: Request) -> Result:
    """Wait for the result, for the client to leave, or for the server to end."""
    done = asyncio.wrap_future(measuring)
    gone = asyncio.ensure_future(wait_until_gone(request.receive))
    cut = asyncio.ensure_future(core.cut_off.wait())
    waiting: list[asyncio.Future[Any]] = [done, gone, cut]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return done.result()
        who = "the client left" if gone.done() else "the server was stopped"
        return AnalysisError.from_exception(
            GenerationCancelled(f"{who} before the prompt was measured")
        )
    finally:
        for one in waiting:
            one.cancel()


def _record(core: Core, job: _Job, result: Result | None) -> tuple[bytes, HTTPStatus]:
    settings = RunSettings(
        run_id=job.run.run_id,
        sampling=job.options.sampling,
        content=core.config.content,
        correlation_id=get_correlation_id(),
    )
    if isinstance(job.case, RefusedInput) or result is None:
        refused = job.case
        assert isinstance(refused, RefusedInput)  # noqa: S101 - nothing else goes unmeasured
        outcome = build_refusal(refused, settings)
    else:
        outcome = build_outcome(job.case, result, core.engine, settings)
    line = job.run.write(outcome)
    if job.run is not core.run:
        job.run.end()
    return line, _status_of(outcome.record)


def _status_of(record: Mapping[str, object]) -> HTTPStatus:
    match record:
        case {"kind": "analysis"}:
            return HTTPStatus.OK
        case {"kind": "refused"}:
            return HTTPStatus.UNPROCESSABLE_ENTITY
        case {"error": {"type": str(error_type)}}:
            return _STATUS_BY_ERROR.get(error_type, HTTPStatus.INTERNAL_SERVER_ERROR)
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR
