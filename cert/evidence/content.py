"""Which members of a record are content, and records without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cert.evidence.parts import MAX_MESSAGE_CHARS
from cert.inputs.ids import is_content_id, place_id
from cert.observability.redaction import MASK

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_MODES: Final = ("full", "committed", "omitted")

CONTENT_MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    "prompt": ("label", "response", "text", "token_ids"),
    "generation": ("ranks", "text", "token_ids"),
}
"""Token ids spell the text, ranks are token ids by another numbering, and a label may be the answer
itself."""

QUOTES_CONTENT: Final = "the message may quote content, which is left out here"


def part_content(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a full record into what is no content and what is.

    A prompt id that follows from the prompt is content, too; the prompt's place stands for it then.
    An error's message that quotes content is replaced. Redacted and cut messages are replaced, too,
    because a quotation may no longer be recognised in them.

    Args:
        record: Of kind analysis or error; it is left as it is.

    Returns:
        The record without its content, and the content: members by the part that they are of,
        parts without any left out.
    """
    rest = dict(record)
    content: dict[str, Any] = {}
    derived_id = _derived_id(record)
    for part, names in CONTENT_MEMBERS.items():
        members = record.get(part, {})
        taken = {name: members[name] for name in names if name in members}
        if taken:
            content[part] = taken
            rest[part] = {name: value for name, value in members.items() if name not in taken}
    if derived_id is not None:
        content["prompt"]["id"] = derived_id
        rest["prompt"]["id"] = place_id(record["input"]["source"], record["input"]["line"])
    if "error" in record:
        said = record["error"]["message"]
        texts = [value for value in content.get("prompt", {}).values() if isinstance(value, str)]
        is_changed = MASK in said or len(said) >= MAX_MESSAGE_CHARS
        if is_changed or any(text and text in said for text in texts):
            rest["error"] = record["error"] | {"message": QUOTES_CONTENT}
    return rest, content


def _derived_id(record: Mapping[str, Any]) -> str | None:
    """The prompt's id, if it follows from the prompt; None if it was given."""
    prompt, generation = record.get("prompt", {}), record.get("generation", {})
    response = prompt.get("response")
    if generation.get("finish_reason") == "scored":
        response = generation.get("text")
    given, text = prompt.get("id"), prompt.get("text")
    if given is None or text is None or not is_content_id(given, text, response):
        return None
    return str(given)
