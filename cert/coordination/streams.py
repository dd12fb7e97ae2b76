"""The events of a stream put together to the message that they tell."""

from __future__ import annotations

from typing import Any

from cert.coordination.faults import PassingError
from cert.coordination.protocol import CallFailure
from cert.coordination.replies import invalid

_WITHIN = frozenset(
    {
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    }
)


class MessageAssembler:
    """Takes in events one by one."""

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, dict[str, Any]] = {}
        self._texts: dict[int, list[str]] = {}
        self._is_over = False

    def add(self, event: object) -> None:
        """Take in one event; a kind that is not known is passed over, as the API asks.

        Raises:
            AttemptError: It is none, or comes out of order; `INVALID`.
        """
        if not isinstance(event, dict):
            raise invalid(f"an event is a JSON object, got {type(event).__name__}")
        kind = event.get("type")
        if not isinstance(kind, str):
            raise invalid("an event of the stream has no type")
        if kind == "message_start":
            if self._message is not None:
                raise invalid("a second message begins within the stream")
            self._message = dict(_object(event, "message"))
        elif kind in _WITHIN:
            if self._message is None or self._is_over:
                raise invalid(f"{kind} outside of a message")
            self._add_part(self._message, kind, event)

    def message(self) -> dict[str, Any]:
        """Return the message.

        Raises:
            PassingError: The stream ended before it did; another one may not.
        """
        if self._message is None or not self._is_over:
            raise PassingError(
                "the stream ended before the message did",
                failure=CallFailure.TRANSIENT,
                error="cut_stream",
                is_maybe_billed=True,
            )
        content = [
            block | ({"text": "".join(self._texts[index])} if block.get("type") == "text" else {})
            for index, block in sorted(self._blocks.items())
        ]
        return self._message | {"content": content}

    def _add_part(self, message: dict[str, Any], kind: str, event: dict[str, Any]) -> None:
        if kind == "message_stop":
            self._is_over = True
        elif kind == "message_delta":
            message.update(_object(event, "delta"))
            usage, told = message.get("usage"), event.get("usage")
            if isinstance(usage, dict) and isinstance(told, dict):
                message["usage"] = usage | {
                    name: count for name, count in told.items() if count is not None
                }
        else:
            self._add_block(kind, event)

    def _add_block(self, kind: str, event: dict[str, Any]) -> None:
        index = event.get("index")
        if isinstance(index, bool) or not isinstance(index, int):
            raise invalid("a block of the stream has no index")
        if kind == "content_block_start":
            if index in self._blocks:
                raise invalid("a block of the stream begins twice")
            block = _object(event, "content_block")
            self._blocks[index] = block
            self._texts[index] = [_string(block, "text")] if block.get("type") == "text" else []
        elif index not in self._blocks:
            raise invalid("a part of a block comes before the block")
        elif kind == "content_block_delta":
            delta = _object(event, "delta")
            if delta.get("type") == "text_delta":
                self._texts[index].append(_string(delta, "text"))


def _object(event: dict[str, Any], name: str) -> dict[str, Any]:
    value = event.get(name)
    if not isinstance(value, dict):
        raise invalid(f"an event of the stream has no {name}")
    return value


def _string(block: dict[str, Any], name: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise invalid(f"a block of the stream has no {name}")
    return value
