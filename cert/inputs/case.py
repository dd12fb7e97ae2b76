"""One prompt as it came in, or the reason why it was refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PromptCase:
    """A prompt with its stable id and where it came from.

    Attributes:
        id: Given by the input, or `sha256` of the content (first 16 hex digits), with `-2`, `-3`,
            ... appended for repeated content.
        text: The prompt.
        response: A text to score instead of generating one.
        group: For intervals by group and for clustered statistics.
        label: The expected outcome or answer, where the input has one.
        source: File name, `-` for stdin, or `argument`.
        line: 1-based line (or row, for Parquet) in the source.
    """

    id: str
    text: str
    response: str | None = None
    group: str | None = None
    label: str | None = None
    source: str = "argument"
    line: int = 1


@dataclass(frozen=True, slots=True)
class RefusedInput:
    """An input line that could not become a prompt; never raised, always yielded.

    Attributes:
        source: As in `PromptCase`.
        line: As in `PromptCase`.
        error_type: `InvalidInput` or `PromptTooLong`.
        message: The reason, without the input's own text.
    """

    source: str
    line: int
    error_type: str
    message: str
