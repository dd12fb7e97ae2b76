"""Evidence records: built, described by a JSON Schema, recomputed from their own numbers."""

from typing import TYPE_CHECKING

from cert._lazy import attach

if TYPE_CHECKING:
    from cert.evidence.record import build_analysis_record as build_analysis_record
    from cert.evidence.record import build_error_record as build_error_record
    from cert.evidence.record import build_refused_record as build_refused_record
    from cert.evidence.record import encode_record as encode_record
    from cert.evidence.schema import record_schema as record_schema

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "build_analysis_record": "cert.evidence.record",
        "build_error_record": "cert.evidence.record",
        "build_refused_record": "cert.evidence.record",
        "encode_record": "cert.evidence.record",
        "record_schema": "cert.evidence.schema",
    },
)
