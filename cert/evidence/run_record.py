"""Runs as records: what was asked for before the first prompt, how many came out how at the end.

    begin -> records -> end
    begin -> records -> interrupted -> resumed -> records -> end

A run that was killed has neither `interrupted` nor `end`; it may be resumed all the same.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

import cert
from cert.evidence.content import CONTENT_MODES
from cert.evidence.parts import describe_model, describe_sampling, encodable, run_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.assessment.policy import Policy
    from cert.backends.protocol import ModelIdentity, SamplingParams
    from cert.evidence.coordination_plan import PlanPolicy

RUN_PHASES: Final = ("begin", "resumed", "interrupted", "end")
_OPENS: Final = frozenset({"begin", "resumed"})


@dataclass(frozen=True, slots=True)
class RunInput:
    """One source of prompts.

    Attributes:
        source: File name, `-` for stdin, or `argument`, as in the records of its lines.
        sha256: Of the file, in hex; None where it cannot be known before it is read (stdin).
        bytes: Its size, likewise.
    """

    source: str
    sha256: str | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """The machine that a run was on, as far as results may depend on it; nothing that names it.

    Attributes:
        platform: For example `linux`.
        arch: For example `x86_64`.
        versions: Of the program and of Python, by name.
    """

    platform: str
    arch: str
    versions: Mapping[str, str]


def load_host() -> Host:
    """Look at the machine that this runs on."""
    return Host(
        platform=sys.platform,
        arch=platform.machine(),
        versions={"cert": cert.__version__, "python": platform.python_version()},
    )


@dataclass(frozen=True, slots=True)
class RunBegin:
    """What a run was asked to do, and with what.

    Attributes:
        command: Name of the command, for example `batch`.
        job: `sha256:` over everything that was asked for, by which a run is found again.
        inputs: Where the prompts come from.
        policy: In force; registered by a `policy` record before this.
        content: `full`, `committed` or `omitted`, for every record of the run.
        sampling: How tokens are chosen; None where nothing is generated.
        limit: Input lines to take at most; None for all.
        identity: Of the model; None where none was loaded yet.
        host: The machine.
    """

    command: str
    job: str
    inputs: tuple[RunInput, ...]
    policy: Policy | PlanPolicy
    content: str
    sampling: SamplingParams | None
    limit: int | None
    identity: ModelIdentity | None
    host: Host


@dataclass(frozen=True, slots=True)
class RunCounts:
    """All records of a run up to here, whatever process wrote them.

    Attributes:
        passed: Records with the verdict pass.
        failed: Records with the verdict fail.
        inconclusive: Records with the verdict inconclusive.
        errors: Records of kind error.
        refused: Records of kind refused.
    """

    passed: int = 0
    failed: int = 0
    inconclusive: int = 0
    errors: int = 0
    refused: int = 0


def build_run_record(  # noqa: PLR0913 - everything that one record says
    *,
    run_id: str,
    phase: Literal["begin", "resumed", "interrupted", "end"],
    details: RunBegin | RunCounts,
    correlation_id: str | None = None,
    exit_code: int | None = None,
    time: str | None = None,
) -> dict[str, object]:
    """Record that a run begins, goes on, stops or ends.

    Args:
        run_id: Of the run.
        phase: `begin` once; `resumed` whenever another process goes on with it; `interrupted` when
            one stops before the input's end; `end` once.
        details: `RunBegin` for the first two phases, `RunCounts` for the others.
        correlation_id: Ties the record to log lines.
        exit_code: Of the process, at the end; None where nothing exits.
        time: RFC 3339; now where it is not given.

    Raises:
        ValueError: The details are those of another phase, or another content mode.
    """
    run: dict[str, object] = {"phase": phase}
    if phase in _OPENS and isinstance(details, RunBegin) and exit_code is None:
        run |= _describe_begin(details)
    elif phase == "interrupted" and isinstance(details, RunCounts) and exit_code is None:
        run["counts"] = asdict(details)
    elif phase == "end" and isinstance(details, RunCounts):
        run |= {"counts": asdict(details), "exit_code": exit_code}
    else:
        raise ValueError(
            f"phase {phase!r} with {type(details).__name__} and exit code {exit_code}: begin and "
            "resumed take RunBegin, interrupted and end RunCounts, end alone an exit code"
        )
    return {**run_head("run", run_id, correlation_id, time), "run": run}


def _describe_begin(begin: RunBegin) -> dict[str, object]:
    if begin.content not in CONTENT_MODES:
        raise ValueError(
            f"content is {begin.content!r}; expected one of {', '.join(CONTENT_MODES)}"
        )
    identity = begin.identity
    return {
        "command": begin.command,
        "job": begin.job,
        "inputs": [asdict(one) | {"source": encodable(one.source)} for one in begin.inputs],
        "policy": {
            "id": begin.policy.id,
            "version": begin.policy.version,
            "digest": begin.policy.digest,
        },
        "content": begin.content,
        "sampling": None if begin.sampling is None else describe_sampling(begin.sampling),
        "limit": begin.limit,
        "model": None if identity is None else describe_model(identity),
        "device": None if identity is None else identity.device,
        "versions": {
            **({} if identity is None else identity.versions),
            **begin.host.versions,
        },
        "host": {"platform": begin.host.platform, "arch": begin.host.arch},
    }
