"""POST /v1/batch: lines in, records out, both at once.

    body -> pump -> reader thread: lines -> cases -> engine
                                     engine -> records -> ledger -> reply

The reply begins before the body has ended; a client reads while it sends.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.requests import Request

from cert.core.errors import CertError
from cert.inputs.options import ReadOptions
from cert.observability.correlation import get_correlation_id
from cert.runner.pipeline import RunSettings, run_cases
from cert.service.body import BatchBody, ClientGoneError, LateBodyError
from cert.service.core import require_type
from cert.service.lines import read_lines
from cert.service.recorder import Run
from cert.service.requests import parse_batch_query

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from starlette.types import Receive, Scope, Send

    from cert.inputs.case import PromptCase, RefusedInput
    from cert.runner.pipeline import Outcome
    from cert.service.core import Core
    from cert.service.requests import Options

logger = logging.getLogger(__name__)

NDJSON: Final = "application/x-ndjson"
RUN_HEADER: Final = "Cert-Run"
POLICY_HEADER: Final = "Cert-Policy"
_AHEAD_FACTOR: Final = 2
"""Prompts submitted, as a multiple of the rows that run, where no deadline counts their wait."""


@dataclass(frozen=True, slots=True)
class _LineOptions(ReadOptions):
    """Options of a body, whose lines have a limit of their own."""

    line_bytes: int = 1

    @property
    def max_record_bytes(self) -> int:
        """Bytes that a line may have."""
        return min(32 * self.max_chars + 65_536, self.line_bytes)


class BatchRoute:
    """An ASGI application, since Starlette's own endpoints read before they answer."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one batch.

        Raises:
            Problem: It is refused as a whole.
            LedgerError: The run cannot begin.
        """
        core = self._core
        request = Request(scope)
        require_type(request, NDJSON, "application/jsonl", "application/json")
        options = parse_batch_query(
            request.query_params.multi_items(), request.headers.get(POLICY_HEADER), core.defaults
        )
        body = BatchBody(receive, idle_s=core.config.receive_timeout)
        with Run(core.recorder) as run:
            policy = options.policy or core.engine.policy
            correlation_id = get_correlation_id() or ""
            await core.in_thread(run.begin, "batch", policy, options.sampling, correlation_id)
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        (b"content-type", NDJSON.encode()),
                        (RUN_HEADER.lower().encode(), run.run_id.encode()),
                    ],
                }
            )
            stream = _Stream(core, run, body, options)
            helpers = [asyncio.create_task(body.pump()), asyncio.create_task(stream.watch())]
            try:
                is_whole = await stream.send_all(send)
            finally:
                body.fail(ClientGoneError())
                for one in helpers:
                    one.cancel()
            if is_whole:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            # Otherwise there is no last chunk: the client sees that records are missing.


class _Stream:
    """The records of one batch, in input order."""

    def __init__(self, core: Core, run: Run, body: BatchBody, options: Options) -> None:
        self._core = core
        self._run = run
        self._body = body
        self._taken = 0
        self._answered = 0
        rows = core.config.batch_rows
        self._settings = RunSettings(
            run_id=run.run_id,
            sampling=options.sampling,
            timeout_s=options.timeout_s,
            chat=options.chat,
            content=core.config.content,
            correlation_id=get_correlation_id(),
            in_flight=rows if options.timeout_s is not None else _AHEAD_FACTOR * rows,
            policy=options.policy,
        )

    async def watch(self) -> None:
        """See that the client goes on sending while nothing else is to be done."""
        await self._body.watch(lambda: self._taken > self._answered)

    async def send_all(self, send: Send) -> bool:
        """Send every record as soon as it is durable.

        Returns:
            Whether the batch came to its end; otherwise its run is recorded as interrupted.
        """
        core, run = self._core, self._run
        outcomes = run_cases(self._cases(), core.engine, self._settings, stopped=self._is_stopped)
        try:
            while (line := await core.in_thread(self._next_line, outcomes)) is not None:
                await send({"type": "http.response.body", "body": line, "more_body": True})
                self._answered += 1
            if not self._is_stopped():
                await core.in_thread(run.end)
                return True
            reason = "the client left" if self._body.is_gone else "the server stops"
        except (LateBodyError, ClientGoneError) as error:
            reason = str(error) or "the client left"
        except CertError as error:
            reason = error.message
        except Exception:
            await core.in_thread(run.interrupt)
            raise
        finally:
            await core.in_thread(outcomes.close)
        logger.warning("a batch ended early", extra={"run_id": run.run_id, "reason": reason})
        await core.in_thread(run.interrupt)
        return False

    def _next_line(self, outcomes: Generator[Outcome, None, None]) -> bytes | None:
        outcome = next(outcomes, None)
        return None if outcome is None else self._run.write(outcome) + b"\n"

    def _is_stopped(self) -> bool:
        return self._body.is_gone or self._core.cut_off.is_set()

    def _cases(self) -> Iterator[PromptCase | RefusedInput]:
        config = self._core.config
        options = _LineOptions(max_chars=config.max_prompt_chars, line_bytes=config.max_body_bytes)
        for case in read_lines(self._body.read, options):
            self._taken += 1
            yield case
