"""Health of a ledger: can it be written, is its end whole and sealed, is its key at hand.

Nothing that anybody can see is written, and nothing is repaired: this is not `cert verify`, which
looks at every record.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING, Final

from cert.core.health import CheckResult
from cert.core.health_host import nearest_folder
from cert.ledger.errors import LedgerError, ProofError, SigningKeyError
from cert.ledger.files import wait_for_lock, write_all
from cert.ledger.glance import load_end
from cert.ledger.key_store import KeyStore
from cert.ledger.reader import CHECKPOINTS, SEGMENTS, list_segments, segment_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cert.ledger.glance import LedgerEnd
    from cert.ledger.keys import Signer
    from cert.ledger.writer import Keys

UNSEALED_S: Final = 3600.0
"""Records that no checkpoint covers are degraded once the newest checkpoint is older than this."""

_PROBE: Final = bytes(4096)
_OPEN_MODES: Final = 0o077


def check_writable(folder: Path, lock_timeout_s: float) -> CheckResult:
    """Whether records could be appended: lock, open, and bytes brought to the disk beside it.

    The bytes go to a file that has no name and is gone at once. A ledger that is not there is fine
    if it can be begun; it is not.

    Args:
        folder: The ledger's.
        lock_timeout_s: How long another process in the middle of a record is waited for.
    """
    place = nearest_folder(folder)
    if not place.is_dir():
        return CheckResult.unhealthy(f"{place} is no folder")
    if place != folder.absolute():
        return _check_can_begin(folder, place)
    try:
        segments = list_segments(folder)
        _lock_and_open(folder, segments, lock_timeout_s)
    except LedgerError as error:
        return CheckResult.unhealthy(error.message)
    except OSError as error:
        return CheckResult.unhealthy(f"{folder} cannot be locked or appended to: {error.strerror}")
    for one in (SEGMENTS, CHECKPOINTS) if segments else ("",):
        if (reason := _probe_disk(folder / one)) is not None:
            return CheckResult.unhealthy(f"{folder / one} cannot be written: {reason}")
    what = "can be appended to" if segments else "is empty, and can be begun"
    return CheckResult.healthy(f"{folder} {what}")


def _check_can_begin(folder: Path, place: Path) -> CheckResult:
    reason = _probe_disk(place)
    if reason is not None:
        return CheckResult.unhealthy(f"{folder} cannot be created: {reason}")
    return CheckResult.healthy(f"{folder} does not exist yet, and can be created")


def _lock_and_open(folder: Path, segments: list[int], lock_timeout_s: float) -> None:
    """Do what a writer does before it writes.

    Raises:
        LedgerError: Another process does not let go of the lock.
        OSError: It cannot be locked or opened.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        wait_for_lock(fd, fcntl.LOCK_EX, folder, lock_timeout_s)
        for first in segments[-1:]:
            path = folder / SEGMENTS / segment_name(first)
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW))
    finally:
        os.close(fd)


def _probe_disk(folder: Path) -> str | None:
    """Bring bytes to the disk in a file without a name; returns what went wrong."""
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
            return error.strerror
        # This file system has no files without names: all that can be asked is the permission.
        may = os.access(folder, os.W_OK | os.X_OK, effective_ids=True)
        return None if may else os.strerror(errno.EACCES)
    try:
        write_all(fd, _PROBE)
        os.fsync(fd)
    except OSError as error:
        return error.strerror
    finally:
        os.close(fd)
    return None


def check_checkpoint(
    folder: Path,
    keys: Callable[[], Keys],
    *,
    max_age_s: float | None,
    lock_timeout_s: float,
    now: Callable[[], float] = time.time,
) -> CheckResult:
    """Whether the end of the ledger is whole, and how far and since when it is sealed.

    Args:
        folder: The ledger's.
        keys: Finds the signing keys, beside which the last head is remembered.
        max_age_s: An older checkpoint is degraded, whatever came after it. None: only where
            records came after it, and it is older than `UNSEALED_S`.
        lock_timeout_s: How long a writer in the middle of a record is waited for.
        now: Seconds since 1970.
    """
    try:
        end = load_end(folder, lock_timeout_s=lock_timeout_s)
        if end.lineage is None:
            return CheckResult.healthy(f"{folder} holds no records yet")
        heads = keys().heads
        head = None if heads is None else heads.find(end.lineage.origin)
    except LedgerError as error:
        return CheckResult.unhealthy(f"{error.message} (`cert verify` says more)")
    if head is not None and head.checkpoint.size > end.records:
        return CheckResult.unhealthy(
            f"your key signed {head.checkpoint.size} records, and {end.records} are there "
            "(`cert verify` says more)"
        )
    if end.torn_bytes:
        return CheckResult.degraded(
            f"the last {end.torn_bytes} bytes are no complete record; the next writer sets them "
            "aside"
        )
    return _judge_age(end, max_age_s, now())


def _judge_age(end: LedgerEnd, max_age_s: float | None, now_s: float) -> CheckResult:
    unsealed = end.records - end.sealed
    if end.sealed_at is None:
        return CheckResult.degraded(f"none of {unsealed} records is sealed by a checkpoint")
    age_s = max(0.0, now_s - end.sealed_at)
    state = (
        f"the newest checkpoint is of {end.sealed} records and {_duration(age_s)} old; "
        f"{unsealed} unsealed after it"
    )
    if max_age_s is not None and age_s > max_age_s:
        return CheckResult.degraded(f"{state}: older than {_duration(max_age_s)}")
    if max_age_s is None and unsealed and age_s > UNSEALED_S:
        return CheckResult.degraded(f"{state}: older than {_duration(UNSEALED_S)}")
    if not end.is_proven:
        return CheckResult.degraded(
            f"{state}; its notes are missing, so only `cert verify` can tell whether it holds"
        )
    return CheckResult.healthy(state)


def _duration(seconds: float) -> str:
    """A length of time in its largest whole unit.

    >>> _duration(59), _duration(7300), _duration(200_000)
    ('59 s', '2 h', '2 d')
    """
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def check_key(folder: Path, keys: Callable[[], Keys], *, lock_timeout_s: float) -> CheckResult:
    """Whether the key that the ledger is signed with is here, and signs.

    Args:
        folder: The ledger's.
        keys: Finds the signing keys; none is made.
        lock_timeout_s: How long a writer in the middle of a record is waited for.
    """
    try:
        found = keys()
    except SigningKeyError as error:
        return CheckResult.unhealthy(_with_hint(error))
    try:
        lineage = load_end(folder, lock_timeout_s=lock_timeout_s).lineage
    except LedgerError as error:
        return CheckResult.unknown(f"which key signs is not known: {error.message}")
    try:
        if lineage is None and isinstance(found, KeyStore) and found.current() is None:
            return _check_room_for_key(found.folder)
        signer = found.default() if lineage is None else found.find(lineage.current)
        _prove(signer)
    except (SigningKeyError, ProofError) as error:
        return CheckResult.unhealthy(_with_hint(error))
    if isinstance(found, KeyStore):
        path = found.path_of(signer.public)
        if path.lstat().st_mode & _OPEN_MODES:
            return CheckResult.degraded(f"{path} can be used by others: chmod 600 {path}")
    which = "signs" if lineage is None else f"signs, and is in force in {lineage.origin}"
    return CheckResult.healthy(f"{signer.public.text} {which}")


def _check_room_for_key(folder: Path) -> CheckResult:
    reason = _probe_disk(nearest_folder(folder))
    if reason is not None:
        return CheckResult.unhealthy(f"no key can be made in {folder}: {reason}")
    return CheckResult.healthy("there is no key yet; one is made with the ledger")


def _prove(signer: Signer) -> None:
    """Sign something that is no checkpoint, and verify it.

    Raises:
        ProofError: The halves of the key do not belong together.
    """
    probe = b"cert health probe\n" + secrets.token_bytes(32)
    signer.public.verify(signer.sign(probe), probe)


def _with_hint(error: LedgerError) -> str:
    return error.message if error.hint is None else f"{error.message}; {error.hint}"
