"""Policies: thresholds fixed before the run that they judge, in YAML, with an id and a digest."""

from __future__ import annotations

import difflib
import hashlib
import math
import operator
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec

from cert.core.errors import ConfigurationError, PolicyError
from cert.core.strict_yaml import parse_yaml
from cert.ledger.canonical import MAX_SAFE_INTEGER, canonical_bytes
from cert.signals.summary import SignalSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.resources.abc import Traversable

SIGNALS: Final = SignalSummary.__slots__
"""What a policy may hold thresholds for: every field of a summary."""

OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

MAX_POLICY_BYTES = 64 * 1024
MAX_CHECKS = 100

Incomplete = Literal["inconclusive", "judge"]
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a policy: the text passes where `signal op threshold` holds.

    Attributes:
        signal: A field of `SignalSummary`, for example `perplexity`.
        op: `<`, `<=`, `>` or `>=`.
        threshold: Finite, in the signal's unit.

    Raises:
        ValueError: Another signal or comparison, or a threshold that is not finite.
    """

    signal: str
    op: str
    threshold: float

    def __post_init__(self) -> None:
        """Refuse what types alone let through."""
        if self.signal not in SIGNALS:
            raise ValueError(
                f"there is no signal {self.signal!r}{_suggest(self.signal, SIGNALS)}; "
                f"signals: {', '.join(SIGNALS)}"
            )
        if self.op not in OPERATORS:
            raise ValueError(f"op is {self.op!r}; expected one of {' '.join(OPERATORS)}")
        if not math.isfinite(self.threshold):
            raise ValueError(f"threshold is {self.threshold}; expected a finite number")


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a text is held against.

    Attributes:
        id: 1 to 64 letters, digits, `.`, `_`, `-`; names the policy in records.
        version: Counts up whenever anything else changes, >= 1.
        checks: At least one; all must pass.
        min_tokens: Below it the signals carry no decision, >= 1.
        incomplete: What a timeout or a cancellation makes of the verdict: `inconclusive`, or
            `judge` to judge what there is as if it had ended there by itself.

    Raises:
        ValueError: A value outside its domain, no checks, or the same comparison twice.
    """

    id: str
    version: int
    checks: tuple[Threshold, ...]
    min_tokens: int = 1
    incomplete: Incomplete = "inconclusive"

    def __post_init__(self) -> None:
        """Refuse what types alone let through."""
        if not _ID.fullmatch(self.id):
            raise ValueError(f"id is {self.id!r}; expected 1 to 64 letters, digits, . _ -")
        for name, number in (("version", self.version), ("min_tokens", self.min_tokens)):
            if not 1 <= number <= MAX_SAFE_INTEGER:
                raise ValueError(f"{name} is {number}; expected 1 or more")
        if self.incomplete not in get_args(Incomplete):
            raise ValueError(f"incomplete is {self.incomplete!r}; expected inconclusive or judge")
        if not 1 <= len(self.checks) <= MAX_CHECKS:
            raise ValueError(f"{len(self.checks)} checks; expected 1 to {MAX_CHECKS}")
        seen = {(check.signal, check.op) for check in self.checks}
        if len(seen) != len(self.checks):
            raise ValueError("the same signal and op stand in two checks")

    @property
    def digest(self) -> str:
        """`sha256:` over the canonical bytes (RFC 8785) of every field above.

        Comments, order of keys and the spelling of numbers in the file don't change it.
        """
        return "sha256:" + hashlib.sha256(canonical_bytes(msgspec.to_builtins(self))).hexdigest()


def parse_policy(data: bytes, *, source: str) -> Policy:
    """Read a policy from YAML.

    Args:
        data: The file's bytes, 64 KiB at most.
        source: The file's name, for messages.

    Raises:
        PolicyError: No such document, an unknown, missing or duplicate key, a value of another
            type, an unknown signal or comparison, a threshold that is not finite, no checks, or
            the same comparison twice; the message says where.
    """
    if len(data) > MAX_POLICY_BYTES:
        raise PolicyError(f"{source}: {len(data)} bytes; a policy has {MAX_POLICY_BYTES} at most")
    try:
        document = parse_yaml(data, source=source)
    except ConfigurationError as error:
        raise PolicyError(error.message, hint=error.hint) from error
    _refuse_unknown_keys(document, Policy, source)
    if isinstance(document, dict) and isinstance(document.get("checks"), list):
        for number, check in enumerate(document["checks"], start=1):
            _refuse_unknown_keys(check, Threshold, f"{source}: check {number}")
    try:
        return msgspec.convert(document, Policy)
    except msgspec.ValidationError as error:
        raise PolicyError(f"{source}: {error}") from error


def load_policy(name_or_path: str) -> Policy:
    """Load a built-in policy by its id, or a policy file by its path.

    A built-in id wins; write `./default` for a file of that name.

    Raises:
        PolicyError: Neither exists, the file cannot be read, or it is wrong.
    """
    known = builtin_policy_ids()
    if name_or_path in known:
        file = _builtin_folder() / f"{name_or_path}.yaml"
        return parse_policy(file.read_bytes(), source=f"built-in policy {name_or_path}")
    path = Path(name_or_path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_POLICY_BYTES + 1)
    except FileNotFoundError as error:
        raise PolicyError(
            f"there is no policy {name_or_path!r}{_suggest(name_or_path, known)}",
            hint=f"built in: {', '.join(known)}; or give the path of a YAML file",
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PolicyError(f"policy {name_or_path!r} cannot be read: {reason}") from error
    return parse_policy(data, source=str(path))


def builtin_policy_ids() -> tuple[str, ...]:
    """Ids of the policies that come with the library, in alphabetical order."""
    names = (file.name for file in _builtin_folder().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def _builtin_folder() -> Traversable:
    """A wheel carries the folder inside the package; a checkout has it beside the package."""
    package = resources.files("cert")
    installed = package / "_configs" / "policies"
    if installed.is_dir():
        return installed
    return Path(str(package)).parent / "configs" / "policies"


def _refuse_unknown_keys(document: object, kind: type[msgspec.Struct], place: str) -> None:
    if not isinstance(document, dict):
        return
    known = kind.__struct_fields__
    for key in document:
        if key not in known:
            raise PolicyError(
                f"{place}: unknown key {key!r}{_suggest(str(key), known)}",
                hint=f"keys: {', '.join(known)}",
            )


def _suggest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
