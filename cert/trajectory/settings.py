"""What is in force: what a call names, on top of the configuration."""

from __future__ import annotations

from pydantic import ValidationError

from cert.backends.protocol import SamplingParams
from cert.core.config import CERTConfig
from cert.core.config_sources import invalid_value
from cert.core.errors import ConfigurationError


def settle(config: CERTConfig | None, *, use_8bit: bool = False, **given: object) -> CERTConfig:
    """Put arguments over a configuration; None leaves it as it is, 0, 0.0 and False do not.

    Args:
        config: What lies beneath; None reads the environment. Configuration files are for whole
            programs: a library that obeyed one in the current folder would surprise its user.
        use_8bit: The specification's way to say `quantize="8bit"`.
        given: Values by the configuration's names.

    Raises:
        ConfigurationError: A value is wrong, or two contradict each other.
    """
    if use_8bit:
        if given.get("quantize") not in {None, "8bit"}:
            raise ConfigurationError(f"use_8bit=True contradicts quantize={given['quantize']!r}")
        given["quantize"] = "8bit"
    base = CERTConfig.from_env() if config is None else config
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return base
    try:
        return CERTConfig.model_validate({**base.model_dump(), **given})
    except ValidationError as error:
        origins = {**base.origins(), **dict.fromkeys(given, "argument")}
        raise invalid_value(error, origins) from error


def sampling_of(config: CERTConfig) -> SamplingParams:
    """How tokens are chosen where a request does not say."""
    return SamplingParams(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        seed=config.seed,
        stop=config.stop,
    )
