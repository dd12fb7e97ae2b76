"""The embedded reference model, and the readings that show whether this machine measures right."""

from typing import TYPE_CHECKING

from cert._lazy import attach

if TYPE_CHECKING:
    from cert.reference.readings import Readings as Readings
    from cert.reference.readings import ReadingsCheck as ReadingsCheck
    from cert.reference.readings import compare_readings as compare_readings
    from cert.reference.readings import load_readings as load_readings
    from cert.reference.readings import parse_readings as parse_readings

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Readings": "cert.reference.readings",
        "ReadingsCheck": "cert.reference.readings",
        "compare_readings": "cert.reference.readings",
        "load_readings": "cert.reference.readings",
        "parse_readings": "cert.reference.readings",
    },
)
