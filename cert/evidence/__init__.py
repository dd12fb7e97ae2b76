"""Evidence records: built, described by a JSON Schema, recomputed from their own numbers."""

from typing import TYPE_CHECKING

from cert._lazy import attach

if TYPE_CHECKING:
    from cert.evidence.commitment import CommittedContent as CommittedContent
    from cert.evidence.commitment import commit as commit
    from cert.evidence.commitment import verify_commitment as verify_commitment
    from cert.evidence.note_record import build_note_record as build_note_record
    from cert.evidence.policy_record import build_policy_record as build_policy_record
    from cert.evidence.record import build_analysis_record as build_analysis_record
    from cert.evidence.record import build_error_record as build_error_record
    from cert.evidence.record import build_refused_record as build_refused_record
    from cert.evidence.record import encode_record as encode_record
    from cert.evidence.run_record import build_run_record as build_run_record
    from cert.evidence.schema import record_schema as record_schema

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "CommittedContent": "cert.evidence.commitment",
        "build_analysis_record": "cert.evidence.record",
        "build_error_record": "cert.evidence.record",
        "build_note_record": "cert.evidence.note_record",
        "build_policy_record": "cert.evidence.policy_record",
        "build_refused_record": "cert.evidence.record",
        "build_run_record": "cert.evidence.run_record",
        "commit": "cert.evidence.commitment",
        "encode_record": "cert.evidence.record",
        "record_schema": "cert.evidence.schema",
        "verify_commitment": "cert.evidence.commitment",
    },
)
