"""What the tests of the readers share."""

from __future__ import annotations

from typing import Protocol

from cert.inputs.case import PromptCase, RefusedInput

Item = PromptCase | RefusedInput


class Read(Protocol):
    """The fixture `read`: writes the bytes into a file of that name and reads it."""

    def __call__(self, data: bytes, name: str = ..., **options: object) -> list[Item]: ...


def seen(items: list[Item]) -> list[tuple[int, str]]:
    """Line and prompt of cases, line and `!error_type` of refusals."""
    return [
        (item.line, item.text if isinstance(item, PromptCase) else f"!{item.error_type}")
        for item in items
    ]


def reasons(items: list[Item]) -> list[str]:
    return [item.message for item in items if isinstance(item, RefusedInput)]


def only(items: list[Item]) -> PromptCase:
    """The one case that there is."""
    (item,) = items
    assert isinstance(item, PromptCase), item
    return item
