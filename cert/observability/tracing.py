"""OpenTelemetry traces, where they are asked for: what was done, for how long, for which request.

    analysis      `text_completion MODEL` or `score MODEL`, by the conventions for generative AI
    model load, ledger append, and the run of a command around them

No text of a prompt or of a response is ever in a span. Spans leave in the background, over
OTLP/HTTP, to where the standard OTEL_* variables say, this machine by default. A collector that is
slow or down loses spans, and nothing else: no call here waits for it but the last one, for at most
`FLUSH_S`. Nothing of opentelemetry is imported before `exporting_traces` is entered.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from cert.observability.correlation import get_correlation_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

    Value = str | bool | int | float | Sequence[str]

logger = logging.getLogger(__name__)

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"
"""The semantic conventions that names of attributes are from."""

FLUSH_S: Final = 2.0
_TRACEPARENT_VARIABLE: Final = "TRACEPARENT"
_CORRELATION_ID: Final = "cert.correlation_id"

_parent: ContextVar[Context | None] = ContextVar("cert_trace_parent", default=None)
_active: _Exporter | None = None


@contextmanager
def exporting_traces(version: str) -> Iterator[None]:
    """Export the spans of this process while the block runs; an inner block changes nothing.

    Args:
        version: Of this program.

    Raises:
        ModuleNotFoundError: opentelemetry is not installed.
        ValueError: An OTEL_* variable has a wrong value.
    """
    global _active  # noqa: PLW0603 - one exporter a process, as OpenTelemetry has it
    if _active is not None:
        yield
        return
    _active = exporter = _Exporter(version)
    try:
        yield
    finally:
        _active = None
        exporter.close()


@contextmanager
def trace_parent(traceparent: str | None) -> Iterator[None]:
    """Take spans in the block for parts of a caller's trace.

    Args:
        traceparent: Header of W3C Trace Context; None, or one that is malformed, begins a trace.
    """
    if _active is None or traceparent is None:
        yield
        return
    token = _parent.set(_active.read_parent(traceparent))
    try:
        yield
    finally:
        _parent.reset(token)


def current_trace() -> Context | None:
    """What later spans of this request are parts of, to be handed to `record_span`."""
    if _active is None:
        return None
    return _parent.get() or _active.default_parent


@contextmanager
def span(
    name: str, attributes: Mapping[str, Value] | None = None, *, is_run: bool = False
) -> Iterator[None]:
    """Trace the block; what it raises is noted by its type alone.

    Args:
        name: What is done.
        attributes: Names and values; no text of prompts or responses.
        is_run: Whether spans of other threads, that know no parent, are parts of this one.
    """
    exporter = _active
    if exporter is None:
        yield
        return
    one = exporter.start(name, current_trace(), time.time_ns(), attributes or {})
    inner = exporter.as_parent(one)
    former, token = exporter.default_parent, _parent.set(inner)
    if is_run:
        exporter.default_parent = inner
    error_type = None
    try:
        yield
    except BaseException as error:
        error_type = type(error).__name__
        raise
    finally:
        if is_run:
            exporter.default_parent = former
        _parent.reset(token)
        exporter.end(one, time.time_ns(), error_type)


def record_span(
    name: str,
    *,
    parent: Context | None,
    duration_s: float,
    attributes: Mapping[str, Value],
    error_type: str | None = None,
) -> None:
    """Trace what has just ended, begun in another thread perhaps.

    Args:
        name: What was done.
        parent: Of `current_trace` where it began.
        duration_s: How long ago that was.
        attributes: Names and values; no text of prompts or responses.
        error_type: Kind of the error that it ended in; None for none.
    """
    exporter = _active
    if exporter is None:
        return
    now_ns = time.time_ns()
    one = exporter.start(name, parent, now_ns - int(duration_s * 1e9), attributes)
    exporter.end(one, now_ns, error_type)


class _Exporter:
    """The library, set up."""

    def __init__(self, version: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - extra
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the same
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the same
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the same

        _tell_faults_once()
        attributes = {"service.version": version}
        named = os.environ.get("OTEL_SERVICE_NAME", "") + os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in named:
            attributes["service.name"] = "cert"
        self._provider: TracerProvider = TracerProvider(
            resource=Resource.create(attributes, SCHEMA_URL), shutdown_on_exit=False
        )
        self._sender = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._sender))
        self._tracer: Tracer = self._provider.get_tracer("cert", version, schema_url=SCHEMA_URL)
        parent = os.environ.get(_TRACEPARENT_VARIABLE)
        self.default_parent: Context | None = self.read_parent(parent) if parent else None

    def start(
        self, name: str, parent: Context | None, at_ns: int, attributes: Mapping[str, Value]
    ) -> Span:
        from opentelemetry.context import Context  # noqa: PLC0415 - the extra

        correlation_id = get_correlation_id()
        more: dict[str, Any] = {} if correlation_id is None else {_CORRELATION_ID: correlation_id}
        return self._tracer.start_span(
            name, parent or Context(), attributes={**attributes, **more}, start_time=at_ns
        )

    def end(self, one: Span, at_ns: int, error_type: str | None) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - the extra

        if error_type is not None:
            one.set_attribute("error.type", error_type)
            one.set_status(Status(StatusCode.ERROR))
        one.end(at_ns)

    def as_parent(self, one: Span) -> Context:
        from opentelemetry.context import Context  # noqa: PLC0415 - the extra
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - the same

        return set_span_in_context(one, Context())

    def read_parent(self, traceparent: str) -> Context | None:
        """Read the header; None for one that says nothing that can be used."""
        from opentelemetry.context import Context  # noqa: PLC0415 - the extra
        from opentelemetry.trace import get_current_span  # noqa: PLC0415 - the same
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - the same
            TraceContextTextMapPropagator,
        )

        read = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
        return read if get_current_span(read).get_span_context().is_valid else None

    def close(self) -> None:
        """Send what is left, but don't wait long for it."""
        # A daemon: a collector that accepts and says nothing must not hold up the process.
        closing = threading.Thread(target=self._provider.shutdown, name="cert-traces", daemon=True)
        closing.start()
        closing.join(FLUSH_S)
        if closing.is_alive():
            self._sender.shutdown()  # type: ignore[no-untyped-call]  # the library's; tries no more
            logger.warning("the last traces were not taken within %g s, and are lost", FLUSH_S)


class _ToldOnce(logging.Handler):
    """The library's complaints, the first one alone."""

    _is_told = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_told:
            self._is_told = True
            logger.warning("traces are lost: %s", record.getMessage()[:500])


def _tell_faults_once() -> None:
    library = logging.getLogger("opentelemetry")
    library.propagate = False
    if not any(isinstance(one, _ToldOnce) for one in library.handlers):
        library.addHandler(_ToldOnce(logging.WARNING))
