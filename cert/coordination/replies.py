"""What came back held against what a message must be; the SDK lets most of it pass.

Nothing here is repaired: what is no message is `CallFailure.INVALID`, charged for by its usage
where that can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import jsonschema_rs
import orjson

from cert.coordination.faults import AttemptError, unsendable
from cert.coordination.protocol import CallFailure, Reply, StopReason, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

# More than any model reads or writes; a count beyond is a fault, and would eat the budget.
MAX_TOKENS = 10**9

_CUT_OR_REFUSED = frozenset({StopReason.MAX_TOKENS, StopReason.REFUSAL})


def parse_message(document: object) -> Reply:
    """Check a message and take out what a reply has.

    Raises:
        AttemptError: It is no message that a plain call can have; `INVALID`.
    """
    if not isinstance(document, dict):
        raise invalid(f"a message is a JSON object, got {type(document).__name__}")
    if document.get("type") != "message":
        raise invalid(f"the type is not message but {_show(document.get('type'))}")
    usage = parse_usage(document.get("usage"))
    if document.get("role") != "assistant":
        raise invalid(f"the role is not assistant but {_show(document.get('role'))}", usage)
    model, message_id = document.get("model"), document.get("id")
    if not isinstance(model, str) or not model:
        raise invalid("it does not say which model answered", usage)
    if message_id is not None and not isinstance(message_id, str):
        raise invalid(f"the id is no text but {_show(message_id)}", usage)
    try:
        stop_reason = StopReason(str(document.get("stop_reason")))
    except ValueError:
        raise invalid(
            f"the stop reason is none of a plain call: {_show(document.get('stop_reason'))}", usage
        ) from None
    texts = _texts(document.get("content"), usage)
    if not texts and stop_reason not in _CUT_OR_REFUSED:
        raise invalid("there is no text in it", usage)
    text = "".join(texts)
    if not all(_is_unicode(one) for one in (text, model, message_id or "")):
        raise invalid("it holds lone surrogates", usage)
    return Reply(
        text=text, stop_reason=stop_reason, usage=usage, model=model, message_id=message_id
    )


def parse_usage(document: object) -> Usage:
    """Check what a message says it cost.

    Raises:
        AttemptError: The counts are not there, or are none; `INVALID`.
    """
    if not isinstance(document, dict):
        raise invalid("it does not say what it cost")
    counts = []
    for name, default in (
        ("input_tokens", None),
        ("output_tokens", None),
        ("cache_read_input_tokens", 0),
        ("cache_creation_input_tokens", 0),
    ):
        count = document.get(name)
        if count is None and default is not None:
            count = default
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_TOKENS:
            raise invalid(f"usage.{name} is no count of tokens: {_show(count)}")
        counts.append(count)
    return Usage(*counts)


class ReplySchema:
    """A JSON schema that replies are held against, every keyword of it.

    Args:
        schema: Draft 2020-12; references within it only.

    Raises:
        UnsentError: It is no such schema; `REJECTED`.
    """

    def __init__(self, schema: Mapping[str, object]) -> None:
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                dict(schema), retriever=_refuse, mask="this"
            )
        except (ValueError, TypeError, OSError) as error:
            reason = f"its schema is no JSON schema: {error}"[:500]
        else:
            return
        raise unsendable(reason)

    def check(self, reply: Reply) -> None:
        """Hold a reply against the schema; a refusal has none to follow.

        Raises:
            AttemptError: It was cut, is not JSON, or does not follow the schema; `INVALID`.
        """
        if reply.stop_reason is StopReason.REFUSAL:
            return
        if reply.stop_reason is StopReason.MAX_TOKENS:
            raise invalid("it was cut at max_tokens, so it does not follow the schema", reply.usage)
        try:
            document = orjson.loads(reply.text)
        except orjson.JSONDecodeError as error:
            raise invalid(f"JSON was asked for: {error}", reply.usage) from None
        found = next(self._validator.iter_errors(document), None)
        if found is not None:
            where = "/".join(str(step) for step in found.instance_path) or "the top"
            reason = f"{found.message} at {where}"[:500]
            raise invalid(f"it does not follow the schema: {reason}", reply.usage)


def invalid(reason: str, usage: Usage | None = None) -> AttemptError:
    """Build the error of a reply that is none."""
    return AttemptError(
        f"the reply is no message: {reason}",
        failure=CallFailure.INVALID,
        error="invalid_reply",
        usage=usage,
        is_maybe_billed=usage is None,
    )


def _texts(content: object, usage: Usage) -> list[str]:
    if not isinstance(content, list):
        raise invalid(f"the content is no list but {_show(content)}", usage)
    texts = []
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        text = block.get("text") if kind == "text" else None
        if isinstance(text, str):
            texts.append(text)
        elif kind not in ("thinking", "redacted_thinking"):
            raise invalid(f"a block of content is none of a plain call: {_show(kind)}", usage)
    return texts


def _show(value: object) -> str:
    """Show a value of a server, shortly."""
    shown = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return shown[:80]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"the schema refers to something outside: {uri[:200]}")
