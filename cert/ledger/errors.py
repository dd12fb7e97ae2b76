"""What can go wrong with a ledger.

CertError
└── LedgerError                 the ledger cannot be used as asked
├── LedgerRefusedError      what is there is damaged or is not ours: nothing is written
├── LedgerFullError         no room: the record is not in the ledger
├── LedgerBrokenError       the disk failed: whether the record is there is not known
├── ProofError              a proof, a signature or a checkpoint does not hold
└── SigningKeyError         a key is missing, or is not the one that is needed
"""

from __future__ import annotations

from cert.core.errors import CertError


class LedgerError(CertError):
    """A ledger cannot be used as asked."""


class LedgerRefusedError(LedgerError):
    """What is there is damaged in the middle, or is no ledger: nothing is written to it."""


class LedgerFullError(LedgerError):
    """There is no room, or a limit is reached: the records were not appended, none of them."""


class LedgerBrokenError(LedgerError):
    """The disk failed while syncing: the records are indeterminate, and the writer stays broken.

    A failed fsync is reported once, and pages may be lost after it; asking again would lie.
    """


class ProofError(LedgerError):
    """A proof, a signature or a checkpoint does not hold."""


class SigningKeyError(LedgerError):
    """A key is missing, cannot be read, or is not the one that is needed."""
