"""Votes over answers that mean the same."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cert.coordination.answers import extract_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.coordination.tasks import Task


def choose_by_vote(task: Task, replies: Sequence[str]) -> int:
    """Choose the first reply that gives the most frequent answer.

    Args:
        task: Says which answers mean the same.
        replies: At least one.

    Returns:
        Its place. Among answers that are equally frequent, the one that comes first counts.
        Replies without an answer don't vote; where no reply has one, it is the first reply.
    """
    labels = [task.normalise(extract_answer(reply)) for reply in replies]
    counts = Counter(label for label in labels if label is not None)
    if not counts:
        return 0
    # `most_common` keeps the order of first occurrence among equals.
    return labels.index(counts.most_common(1)[0][0])
