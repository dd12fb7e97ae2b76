"""Digests of what was loaded.

    manifest = {"NAME": "SHA-256 of the file's bytes, in hex", ...}
    digest   = "sha256:" + hex(SHA-256(JCS(manifest)))

JCS is RFC 8785: names sorted, no white space. A file's name is its place in the folder, with `/`
between; where the folder lies does not matter. A file that is not loaded changes nothing.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cert.backends.model_files import open_regular
from cert.ledger.canonical import canonical_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_THREADS = 4


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Hash files, several at a time (hashing lets other threads run).

    Returns:
        SHA-256 in hex by name, sorted by name.

    Raises:
        ModelUnavailableError: A file cannot be read.
    """
    ordered = sorted(set(names))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="cert-hash") as pool:
        digests = pool.map(lambda name: _sha256(folder / name), ordered)
        return dict(zip(ordered, digests, strict=True))


def manifest_digest(manifest: Mapping[str, str]) -> str:
    """Digest a manifest; see the module for the formula.

    >>> manifest_digest({})
    'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'
    """
    return f"sha256:{hashlib.sha256(canonical_bytes(dict(manifest))).hexdigest()}"


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
