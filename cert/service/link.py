"""A connection that is closed so that its last answer arrives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LINGER_S: Final = 2.0


class Link(asyncio.Transport):
    """A socket's transport, but for `close`.

    Closing a socket while the client is still sending resets the connection, and the reset may
    overtake the answer that says why. So where input is outstanding, `close` ends the output,
    throws the input away for up to `LINGER_S` seconds, and then closes.

    Args:
        inner: The socket's own transport.
        has_input: Asked on closing: whether the client may still be sending.
        loop: Where the transport lives.
    """

    def __init__(
        self,
        inner: asyncio.Transport,
        has_input: Callable[[], bool],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__()
        self._inner = inner
        self._has_input = has_input
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.is_lingering = False

    def close(self) -> None:
        """Close now, or as soon as the client has stopped sending."""
        if self.is_closing():
            return
        if not self._has_input():
            self._inner.close()
            return
        self.is_lingering = True
        self._timer = self._loop.call_later(LINGER_S, self._inner.abort)
        self._inner.write_eof()
        self._inner.resume_reading()

    def finish(self) -> None:
        """Stop waiting: the client has stopped sending, or the connection is lost."""
        if self._timer is not None:
            self._timer.cancel()
        self._inner.close()

    def abort(self) -> None:
        """Close without sending what is buffered."""
        self._inner.abort()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self.is_lingering or self._inner.is_closing()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send; what is written after `close` is dropped, as a socket's transport does."""
        if not self.is_lingering:
            self._inner.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send all of them."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """End the output."""
        self._inner.write_eof()

    def pause_reading(self) -> None:
        """Let what comes in wait in the system's buffers."""
        if not self.is_lingering:
            self._inner.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading."""
        self._inner.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - the library's
        """What the socket's transport says about itself."""
        return self._inner.get_extra_info(name, default)
