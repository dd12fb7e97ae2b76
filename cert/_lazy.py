"""Packages that hand their names on without importing the modules behind them.

So `from cert.trajectory import HamiltonianMonitor` works, and `import cert.trajectory` alone
loads nothing heavy (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def attach(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Build `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: The package's `__name__`.
        homes: Full module name by exported name.

    Returns:
        The three, to be assigned in the package's `__init__`.
    """
    names = sorted(homes)

    def load(name: str) -> object:
        home = homes.get(name)
        if home is None:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message)
        return getattr(import_module(home), name)

    return load, lambda: names, names
