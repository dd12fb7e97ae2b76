"""Which command installs what is missing, for the distribution that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

from cert.core.errors import MissingExtraError


def missing_extra(what: str, extra: str) -> MissingExtraError:
    """Build the error for an optional dependency that is not installed.

    The hint names the distribution that is here: cert-framework and cert-framework-core must
    never be installed together (docs/adr/0001).

    Args:
        what: What cannot be done, and what it needs: "reading Parquet needs pyarrow".
        extra: The extra that installs it.
    """
    return MissingExtraError(what, hint=f"pip install '{installed_name()}[{extra}]'")


def installed_name() -> str:
    """`cert-framework-core` where that is installed, `cert-framework` otherwise."""
    try:
        distribution("cert-framework-core")
    except PackageNotFoundError:
        return "cert-framework"
    return "cert-framework-core"
