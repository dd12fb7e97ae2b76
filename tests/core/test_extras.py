from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cert.core.extras import missing_extra

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_names_the_full_distribution() -> None:
    error = missing_extra("reading Parquet needs pyarrow", "parquet")
    assert error.message == "reading Parquet needs pyarrow"
    assert error.hint == "pip install 'cert-framework[parquet]'"


def test_names_the_core_where_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cert_framework_core-4.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: cert-framework-core\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert missing_extra("", "local").hint == "pip install 'cert-framework-core[local]'"
