"""What a monitor's health consists of: is the model there, does it answer, does it measure right.

Nothing is healthy because nobody looked: `inference` and `instrument` are what a forward pass
made just now said. A model that is not loaded is not loaded for this either, because a prober
wants an answer in seconds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cert.backends.protocol import GenerationRequest, SamplingParams
from cert.core.errors import ModelNotLoaded
from cert.core.health import Check, CheckResult
from cert.core.health_host import check_memory
from cert.core.resources import read_memory
from cert.reference.readings import compare_readings, load_readings

if TYPE_CHECKING:
    from cert.backends.protocol import Backend, Generation
    from cert.trajectory.resources import HamiltonianModelResource

PROBE = "The quick brown fox"
_GRACE_S = 1.0
"""So that the check's own deadline, which has a reason to tell, comes first."""


def build_checks(
    resource: HamiltonianModelResource, *, is_reference: bool, timeout_s: float
) -> dict[str, Check]:
    """List the checks of a model resource.

    Args:
        resource: What to look at.
        is_reference: Whether it is the embedded model, whose readings are pinned.
        timeout_s: Seconds that a forward pass may take, waiting for running requests included.
    """
    limit_s = timeout_s + _GRACE_S
    checks = {
        "model": Check(lambda: check_model(resource)),
        "inference": Check(lambda: check_inference(resource, timeout_s), limit_s),
        "memory": Check(
            lambda: check_memory(resource.config.max_memory_gb, read_memory()), critical=False
        ),
    }
    if is_reference:
        checks["instrument"] = Check(lambda: check_instrument(resource, timeout_s), limit_s)
    return checks


def check_model(resource: HamiltonianModelResource) -> CheckResult:
    """Whether the model is loaded, and where it was meant to be."""
    error = resource.load_error
    if error is not None:
        return CheckResult.unhealthy(f"loading failed: {type(error).__name__}: {error}")
    backend = _loaded(resource)
    if backend is None:
        when = "at first use" if resource.lazy else "when load() is called"
        return CheckResult.degraded(f"{resource.model_name} is not loaded; it will be {when}")
    identity = backend.identity
    where = f"{resource.model_name} on {identity.device}, {backend.memory_bytes()} bytes"
    if resource.fallbacks:
        return CheckResult.degraded(f"{where}, after {', '.join(resource.fallbacks)}")
    return CheckResult.healthy(where)


def check_inference(resource: HamiltonianModelResource, timeout_s: float) -> CheckResult:
    """Whether the model writes and measures a token now."""
    backend = _loaded(resource)
    if backend is None:
        return CheckResult.unknown("the model is not loaded: no inference was made")
    request = GenerationRequest(
        id="health",
        prompt=PROBE,
        sampling=SamplingParams(max_new_tokens=1),
        chat="never",
        timeout_s=timeout_s,
    )
    generation, took_s = _run(backend, request, timeout_s)
    if not len(generation.trace):
        return CheckResult.unhealthy(f"no token came: {generation.finish_reason.value}")
    if generation.fallbacks:
        return CheckResult.degraded(f"a token in {took_s:.3f} s, {', '.join(generation.fallbacks)}")
    return CheckResult.healthy(f"a token in {took_s:.3f} s on {generation.device}")


def check_instrument(resource: HamiltonianModelResource, timeout_s: float) -> CheckResult:
    """Whether this machine measures the embedded model as it was measured in float64."""
    backend = _loaded(resource)
    if backend is None:
        return CheckResult.unknown("the model is not loaded: nothing was measured")
    readings = load_readings()
    identity = backend.identity
    weights = identity.files.get("model.safetensors", "none")
    if weights.removeprefix("sha256:") != readings.model_digest.removeprefix("sha256:"):
        return CheckResult.unhealthy(
            f"the readings were pinned for weights {readings.model_digest}, these are {weights}"
        )
    request = GenerationRequest(
        id="health",
        prompt=readings.prompt,
        response=readings.response,
        chat="never",
        timeout_s=timeout_s,
    )
    generation, _ = _run(backend, request, timeout_s)
    if generation.prompt_token_ids != readings.prompt_token_ids:
        return CheckResult.unhealthy("the pinned prompt was tokenized into other tokens")
    computed = identity.quantization or identity.dtype
    found = compare_readings(generation.trace, readings, computed)
    if found.tolerance is None:
        return CheckResult.unknown(found.reason)
    if not found.ok:
        return CheckResult.unhealthy(found.reason)
    worst = max(found.max_logprob_deviation, found.max_entropy_deviation)
    return CheckResult.healthy(
        f"{len(generation.trace)} readings within {worst:.2g} nats of the pinned ones; "
        f"{found.tolerance:g} is fine in {computed}"
    )


def _loaded(resource: HamiltonianModelResource) -> Backend | None:
    try:
        return resource.handle
    except ModelNotLoaded:
        return None


def _run(
    backend: Backend, request: GenerationRequest, timeout_s: float
) -> tuple[Generation, float]:
    """Run past the engine: its cache would answer without a forward pass."""
    start = time.monotonic()
    future = backend.submit(request)
    try:
        generation = future.result(timeout_s + _GRACE_S)
    finally:
        future.cancel()
    return generation, time.monotonic() - start
