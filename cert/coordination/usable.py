"""Which replies hold an answer that can be judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cert.coordination.answers import extract_answer, is_answer_closed
from cert.coordination.evaluator import Reason
from cert.coordination.protocol import StopReason

if TYPE_CHECKING:
    from cert.coordination.protocol import Reply
    from cert.coordination.tasks import Task

_CUT: Final = {StopReason.MAX_TOKENS: Reason.MAX_TOKENS, StopReason.REFUSAL: Reason.REFUSAL}


def find_cut(task: Task, reply: Reply) -> Reason | None:
    """Why a reply cannot be judged; None where it can.

    A refusal, and a text that was cut off, are no answers: what they would have been worth, nobody
    knows, and 0 would be invented. A reply that was cut off after it had given its answer, on a
    marked line of its own, has given it.
    """
    reason = _CUT.get(reply.stop_reason)
    if reason is Reason.MAX_TOKENS and is_answer_closed(reply.text):
        given = task.normalise(extract_answer(reply.text))
        return reason if given is None else None
    return reason
