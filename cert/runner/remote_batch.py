"""One batch to a server: lines go out while records come back, over one connection.

    reader thread: case -> line -> bounded queue -> event loop -> server
    caller <- bounded queue <- event loop <- server

The event loop runs on a thread of its own, so that the caller may be slow: its slowness reaches
the server through the connection, and what is held here stays bounded.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import h11
import orjson

from cert.core.retry import retry
from cert.inputs.case import RefusedInput
from cert.runner.remote_errors import ServerAnswerError, ServerBusyError
from cert.runner.remote_http import build_request, open_link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cert.inputs.case import PromptCase
    from cert.runner.remote_http import Link
    from cert.runner.remote_target import Target

    Case = PromptCase | RefusedInput

MAX_UNANSWERED: Final = 1024
MAX_UNANSWERED_BYTES: Final = 8 << 20
MAX_LINE_BYTES: Final = 64 << 20
BUSY_RETRIES: Final = 8
MAX_BUSY_S: Final = 60.0
"""A wait that a busy server asks for is taken up to this long, this often."""

_POLL_S: Final = 0.05
_READ_AHEAD: Final = 64
_RECEIVED_AHEAD: Final = 16
_CONTINUE_S: Final = 1.0
"""How long a body waits for its `100 Continue`, which not every proxy passes on."""
_BEAT_S: Final = 2.0
"""While no input comes, an empty line this often says that there will be more."""
_JOIN_S: Final = 5.0
_OK: Final = 200


def encode_line(case: Case) -> bytes:
    """A line of the body, its newline included (docs/http-api.md)."""
    line: dict[str, object] = {"input": {"source": _text(case.source), "line": case.line}}
    if isinstance(case, RefusedInput):
        line["refused"] = {"type": case.error_type, "message": _text(case.message)}
    else:
        line |= {"id": case.id, "prompt": case.text}
        given = {"response": case.response, "group": case.group, "label": case.label}
        line |= {name: value for name, value in given.items() if value is not None}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _text(text: str) -> str:
    """Names of files may hold what UTF-8 does not; records say U+FFFD there, too."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True, slots=True)
class _Sent:
    """A line that has no answer yet."""

    case: Case
    data: bytes


@dataclass(slots=True)
class _End:
    """The last thing that the caller is told: that is all, or why no more comes."""

    error: BaseException | None = None


@dataclass(slots=True)
class _Window:
    """How much may be unanswered; for the event loop alone."""

    lines: int = 0
    size_bytes: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, size: int) -> None:
        """Wait for room; one line has room however long it is."""
        async with self.changed:
            await self.changed.wait_for(lambda: self._has_room(size))
            self.lines += 1
            self.size_bytes += size

    async def give_back(self, size: int) -> None:
        """Make room."""
        async with self.changed:
            self.lines -= 1
            self.size_bytes -= size
            self.changed.notify()

    def _has_room(self, size: int) -> bool:
        fits = self.size_bytes + size <= MAX_UNANSWERED_BYTES
        return self.lines == 0 or (self.lines < MAX_UNANSWERED and fits)


class BatchCall:
    """A batch on its way. One thread takes its answers."""

    def __init__(
        self, target: Target, path: str, headers: Mapping[str, str], cases: Iterator[Case]
    ) -> None:
        self._target = target
        self._path = path
        self._headers = {
            "content-type": "application/x-ndjson",
            "transfer-encoding": "chunked",
            "expect": "100-continue",
            **headers,
        }
        self._cases = cases
        self._closed = threading.Event()
        self._read_ahead = threading.Semaphore(_READ_AHEAD)
        self._unanswered: deque[_Sent] = deque()
        """Grows in the event loop and shrinks there, too, with every answer."""
        self._answers: queue.SimpleQueue[tuple[Case, bytes] | _End] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None] | None = None
        self._input: asyncio.Queue[_Sent | _End] = asyncio.Queue()
        self._input_error: BaseException | None = None
        self._is_all_sent = False
        self._window = _Window()
        self._received_ahead = asyncio.Semaphore(_RECEIVED_AHEAD)
        # Daemons: the reader may be waiting for a line of stdin that never comes.
        self._reader = threading.Thread(target=self._read, name="cert-feed", daemon=True)
        self._talker = threading.Thread(target=self._talk, name="cert-remote", daemon=True)

    def start(self) -> None:
        """Connect and begin; `close` ends it."""
        self._loop = asyncio.new_event_loop()
        self._talker.start()

    def next_answer(self, stopped: Callable[[], bool]) -> tuple[Case, bytes] | None:
        """Wait for the next record.

        Args:
            stopped: Asked while waiting; once true, only what has come is handed out.

        Returns:
            What was asked, and the line that came for it; None at the end.

        Raises:
            CertError: The server, the way to it, or the input failed; what was handed out before
                is complete.
        """
        while True:
            is_last_look = stopped()
            try:
                answer = self._answers.get(timeout=0 if is_last_look else _POLL_S)
            except queue.Empty:
                if is_last_look:
                    return None
                continue
            if isinstance(answer, _End):
                if answer.error is not None:
                    raise answer.error
                return None
            with suppress(RuntimeError):  # the loop has ended: nobody waits for room
                self._loop.call_soon_threadsafe(self._received_ahead.release)
            return answer

    def close(self) -> None:
        """Stop sending and hang up."""
        self._closed.set()
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._cancel)
        self._talker.join(_JOIN_S)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _read(self) -> None:
        """Read the input ahead of the event loop."""
        last: BaseException | None = None
        try:
            for case in self._cases:
                if not self._hand_over(_Sent(case, encode_line(case))):
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the thread that writes
            last = error
        self._hand_over(_End(last))

    def _hand_over(self, item: _Sent | _End) -> bool:
        while not self._read_ahead.acquire(timeout=_POLL_S):
            if self._closed.is_set():
                return False
        try:
            self._loop.call_soon_threadsafe(self._input.put_nowait, item)
        except RuntimeError:  # the loop has ended
            return False
        return not self._closed.is_set()

    def _talk(self) -> None:
        """Run the event loop to its end."""
        end = _End()
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._converse())
        except asyncio.CancelledError:
            pass  # the caller has hung up
        except BaseException as error:  # noqa: BLE001 - raised where the answers are taken
            end = _End(error)
        self._answers.put(end)

    async def _converse(self) -> None:
        self._task = asyncio.current_task()
        if self._closed.is_set():
            return
        again = retry(BUSY_RETRIES, exceptions=(ServerBusyError,), max_delay_s=MAX_BUSY_S)
        await again(self._attempt)()
        if self._input_error is not None:
            raise self._input_error

    async def _attempt(self) -> None:
        """Ask once; a server that is busy says so before it has taken anything."""
        async with open_link(self._target) as link:
            await link.send(build_request(self._target, "POST", self._path, self._headers))
            sending = asyncio.create_task(self._send(link))
            try:
                response = await link.response()
                if response.status_code != _OK:
                    await link.fail(response)
                link.is_continued.set()
                await self._receive(link)
            except ServerBusyError as error:
                if self._unanswered:  # what was sent may have been begun with
                    raise ServerAnswerError(error.message, hint=error.hint) from error
                raise
            finally:
                sending.cancel()
                with suppress(asyncio.CancelledError):
                    await sending

    async def _send(self, link: Link) -> None:
        """Send the lines; if the connection fails, whoever receives says how."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONTINUE_S):
                await link.is_continued.wait()
        if not self._reader.is_alive():
            self._reader.start()
        with suppress(OSError):
            while True:
                try:
                    async with asyncio.timeout(_BEAT_S):
                        item = await self._input.get()
                except TimeoutError:
                    await link.send(h11.Data(data=b"\n"))
                    continue
                self._read_ahead.release()
                if isinstance(item, _End):
                    self._input_error = item.error
                    self._is_all_sent = True
                    await link.send(h11.EndOfMessage())
                    return
                await self._window.take(len(item.data))
                self._unanswered.append(item)
                await link.send(h11.Data(data=item.data))

    async def _receive(self, link: Link) -> None:
        pending = bytearray()
        while isinstance(event := await link.next_event(), h11.Data):
            start = len(pending)
            pending += event.data
            if pending.find(b"\n", start) < 0:
                if len(pending) > MAX_LINE_BYTES:
                    raise self._wrong(f"a record of more than {MAX_LINE_BYTES} bytes")
                continue
            *lines, rest = bytes(pending).split(b"\n")
            pending = bytearray(rest)
            for line in lines:
                await self._deliver(line)
        if pending:
            raise link.lost("in the middle of a record")
        if self._unanswered or not self._is_all_sent:
            raise link.lost(f"with {len(self._unanswered)} lines unanswered")

    async def _deliver(self, line: bytes) -> None:
        if not self._unanswered:
            raise self._wrong("more records than there were lines")
        await self._received_ahead.acquire()
        sent = self._unanswered.popleft()
        await self._window.give_back(len(sent.data))
        self._answers.put((sent.case, line))

    def _wrong(self, what: str) -> ServerAnswerError:
        return ServerAnswerError(
            f"{self._target.url} answered with {what}", hint="is it a `cert serve`?"
        )
