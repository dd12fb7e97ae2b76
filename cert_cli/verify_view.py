"""What a verification found: in plain sentences for a person, as one object for a program."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from cert.ledger.findings import State
from cert.ledger.keys import public_key_from_base64
from cert.observability.controls import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cert.ledger.findings import Finding, Report
    from cert_cli.terminal import Style
    from cert_cli.verification import Verified

_SHOWN: Final = 20
_VALUE_CHARS: Final = 240
_COLORS: Final = {
    State.VALID: "1;32",
    State.UNANCHORED: "1;32",
    State.UNSEALED: "1;33",
    State.TORN: "1;31",
    State.ROLLED_BACK: "1;31",
    State.INVALID: "1;31",
}
_LIMITS: Final = (
    "This is about whether records were changed after they were signed. It does not show that they "
    "are true or complete, nor that any system complies with any rule."
)


def to_json(verified: Verified) -> str:
    """One object: everything of the report, the key's source, the exit code."""
    report, pinned, tokens = verified.report, verified.pinned, verified.tokens
    head = verified.head
    value = {
        "state": str(report.state),
        "exit_code": int(verified.code),
        "path": str(verified.request.path),
        "kind": verified.kind,
        "pinned": None
        if pinned is None
        else {
            "key": pinned.key.text,
            "fingerprint": pinned.key.fingerprint,
            "kind": pinned.kind,
            "source": pinned.source,
        },
        "head": None
        if head is None
        else {"size": head.size, "path": str(head.path), "is_remembered": head.is_remembered},
        "timestamp": {
            "size": tokens.size,
            "fault": tokens.fault,
            "verified": None if tokens.timestamp is None else asdict(tokens.timestamp),
        },
        **{name: item for name, item in asdict(report).items() if name != "state"},
    }
    return json.dumps(value) + "\n"


def to_text(verified: Verified, style: Style) -> str:
    """A page for whoever has to decide something."""
    report = verified.report
    word = report.state.value.upper()
    if style.color:
        word = f"\x1b[{_COLORS[report.state]}m{word}\x1b[0m"
    head = f"{word}  {_plain(str(verified.request.path))}"
    blocks = [
        [head, *_wrap(_say(verified), style.width)],
        [*_first(report)],
        [*_table(verified)],
        [*_others(report)],
        [*_wrap(_next(verified), style.width)],
        [*_wrap(_LIMITS, style.width)],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _say(verified: Verified) -> str:
    """What the state means here, in a sentence or two."""
    report, head = verified.report, verified.head
    is_own = head is not None and head.is_remembered
    kept = "remembered when your key signed it" if is_own else "kept elsewhere"
    total = report.pruned + report.records
    match report.state:
        case State.VALID:
            words = (
                f"Nothing was changed: {_of(report)} are those that were signed, and they continue "
                f"the head of {0 if head is None else head.size} records that was {kept}."
            )
        case State.UNANCHORED:
            words = (
                f"Nothing was changed since it was signed: {_of(report)} are those that the "
                "checkpoints cover. Nothing outside the evidence pins its end, though: an older "
                "copy, or one without its last records and checkpoints, would look the same."
            )
        case State.UNSEALED if not report.sealed:
            what = "file" if verified.kind == "file" else "ledger"
            words = (
                f"Nothing wrong was found, but nothing in this {what} is signed: whoever could "
                f"write to it could have written other lines in place of {_of(report)}."
            )
        case State.UNSEALED:
            signed = "signed" if verified.kind != "file" else "there when the head was signed"
            words = (
                f"Nothing wrong was found. The first {report.sealed} records are those that were "
                f"{signed}; no signature covers the last {total - report.sealed} yet."
            )
        case State.TORN:
            words = (
                "The last line is incomplete, as when a writer was cut off. Nothing else was "
                f"found: signatures cover {report.sealed} of the {total} complete records before "
                "it."
            )
        case State.ROLLED_BACK:
            words = (
                f"This is not the continuation of the head that was {kept}: records that were "
                "there then are missing, or others are in their place."
            )
        case _:
            words = (
                "This is not what was written and signed: something was changed, removed or "
                "inserted, or it is signed by a key that is not trusted."
            )
    return words


def _of(report: Report) -> str:
    if report.records == 1 and not report.pruned:
        return "the one record"
    return f"all {report.records} records" + (" that are left" if report.pruned else "")


def _first(report: Report) -> Iterator[str]:
    one = report.first
    if one is None:
        return
    yield f"{'where':<10}{_place(one)}"
    yield f"{'what':<10}{_plain(one.message)} ({one.code})"
    if one.expected is not None:
        yield f"{'expected':<10}{_plain(one.expected)}"
    if one.found is not None:
        yield f"{'found':<10}{_plain(one.found)}"


def _place(one: Finding) -> str:
    if one.line is None:
        return "no single line"
    parts = [f"line {one.line}"]
    if one.segment is not None:
        parts.append(f"segments/{_plain(one.segment)}")
    if one.offset is not None:
        parts.append(f"byte {one.offset}")
    return ", ".join(parts)


def _table(verified: Verified) -> Iterator[str]:
    report, pinned = verified.report, verified.pinned
    if report.origin is not None:
        yield f"{'ledger':<10}{_plain(report.origin)}"
    sealed = f", the first {report.sealed} of them signed"
    if report.pruned + report.records == report.sealed:
        sealed = ", all of them signed"
    left = f", of which the first {report.pruned} were pruned" if report.pruned else ""
    total = report.pruned + report.records
    yield f"{'records':<10}{total}{left}{sealed if report.sealed else ', none of them signed'}"
    if report.kinds:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.kinds.items()))
        yield f"{'':<10}{kinds}"
    if report.key is not None:
        fingerprint = public_key_from_base64(report.key.partition(":")[2]).fingerprint
        yield f"{'key':<10}{report.key}, in force at the end; fingerprint {fingerprint}"
    if pinned is None:
        yield f"{'trusted':<10}no key: none was needed"
    else:
        yield f"{'trusted':<10}{pinned.key.text}: {_plain(pinned.source)}"
    head = verified.head
    if head is None:
        yield f"{'head':<10}none was given: nothing outside the evidence pins its end"
    else:
        where = "remembered in " if head.is_remembered else ""
        yield f"{'head':<10}{head.size} records, {where}{_plain(str(head.path))}"
    yield from _token(verified)
    if report.mode == "deep":
        looked = "bytes, links, signatures; and in every record its form, numbers and verdict"
    else:
        looked = "bytes, links, signatures (--fast); not what the records say"
    yield f"{'checked':<10}{looked}"
    if verified.kind == "bundle":
        yield f"{'':<10}the ledger alone: not the verifier, key and head that lie beside it"


def _token(verified: Verified) -> Iterator[str]:
    tokens = verified.tokens
    if tokens.timestamp is not None:
        stamp = tokens.timestamp
        yield (
            f"{'time':<10}the first {tokens.size} records existed at {stamp.time}, says "
            f"{_plain(stamp.tsa or 'a time-stamping authority without a name')}"
        )
    elif tokens.fault is not None:
        yield (
            f"{'time':<10}the time stamp of {tokens.size} records does not hold: "
            f"{_plain(tokens.fault)}"
        )
    elif tokens.size is not None:
        words = f"a time stamp of {tokens.size} records is there, not checked: give --tsa-roots"
        yield f"{'time':<10}{words}"
    elif verified.request.roots is not None:
        yield f"{'time':<10}no time stamp is there"


def _others(report: Report) -> Iterator[str]:
    rest = [one for one in report.findings if one is not report.first]
    for one in rest[:_SHOWN]:
        kind = "remark" if one.state is None else str(one.state)
        yield f"{kind:<12}{_place(one)}: {_plain(one.message)}"
    hidden = len(rest) - _SHOWN + report.omitted
    if hidden > 0:
        yield f"{'':<12}and {hidden} more (--json lists the first thousand)"


def _next(verified: Verified) -> str:
    """What to do now."""
    report, request, head = verified.report, verified.request, verified.head
    failure = (
        "--require-head was given, so this counts as a failure. " if request.requires_head else ""
    )
    anchor = (
        f"{failure}Next: keep its head where whoever can write the ledger cannot (`cert ledger "
        "head > FILE`: a ticket, a CI artefact, another machine), and give it with --head FILE "
        "from now on."
    )
    match report.state:
        case State.VALID if head is not None and head.is_remembered:
            words = anchor
        case State.VALID:
            words = ""
        case State.UNANCHORED:
            words = anchor
        case State.UNSEALED if verified.kind == "file":
            words = (
                "Next: verify the ledger that the lines are from, or give the head that was kept "
                "elsewhere with --head FILE."
            )
        case State.UNSEALED if not report.sealed:
            words = (
                "Next: find out why no checkpoint is there. Each run signs one at its end; if none "
                "is going on, checkpoints were taken away, and these records show nothing about "
                "who wrote them. Do not sign them before that is known; compare them with a head "
                "that was kept (--head FILE). --strict makes this a failure."
            )
        case State.UNSEALED:
            strict = (
                "--strict was given, so this counts as a failure. " if request.is_strict else ""
            )
            words = (
                f"{strict}Next: `cert ledger head > FILE` signs a checkpoint of all records, if "
                "the ledger's key is at hand, and writes the head to be kept elsewhere."
            )
        case State.TORN:
            words = (
                "Next: ask whether a crash is known of. The next command that writes to the ledger "
                "sets the incomplete end aside in a file of its own and records that."
            )
        case State.ROLLED_BACK if head is not None and head.is_remembered:
            words = (
                "Next: if this is meant to be an older copy, give the head that was kept with it "
                "(--head FILE). If it is not, do not write to it; find the copy that continues "
                "the head, and ask who could put another one in its place."
            )
        case State.ROLLED_BACK:
            words = (
                "Next: do not write to it. Find the copy that continues the head, and ask who "
                "could put an older or another one in its place."
            )
        case _:
            words = (
                "Next: do not write to it. Keep a copy as it is, compare it with a backup at the "
                "place named above, and ask its owner for the key if it is signed by another one."
            )
    return words


def _wrap(text: str, width: int) -> list[str]:
    import textwrap  # noqa: PLC0415 - only for people

    return textwrap.wrap(text, width - 1, break_long_words=False, break_on_hyphens=False)


def _plain(text: str) -> str:
    shown = escape_controls(text)
    return shown if len(shown) <= _VALUE_CHARS else f"{shown[:_VALUE_CHARS]}..."
