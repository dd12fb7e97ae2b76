"""Kill a process of one's own before its n-th call that changes something on the disk.

SQLite's own writes are not seen; its transactions are whole or not at all. Syncs are not counted:
what a process wrote outlives it in any case.
"""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Any

from cert.ledger.content import ContentStore

if TYPE_CHECKING:
    from collections.abc import Callable

_KILLED = 9
_CALLS = ("write", "replace", "unlink", "ftruncate")


def killed_at(step: int, act: Callable[[], object]) -> bool:
    """Do it in a child that ends before the n-th call; False where it came to its end before."""
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in {0, _KILLED}, status
        return status == _KILLED
    try:
        left = [step]

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever it takes
                if not left[0]:
                    os._exit(_KILLED)
                left[0] -= 1
                return function(*args, **named)

            return call

        for name in _CALLS:
            setattr(os, name, counted(getattr(os, name)))
        for name in ("delete", "wipe"):
            setattr(ContentStore, name, counted(getattr(ContentStore, name)))
        act()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run in the child
        traceback.print_exc()
        os._exit(1)
