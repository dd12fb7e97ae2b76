"""Where log-probabilities come from: a `Backend` owns a loaded model and batches its requests."""

from cert._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Backend": "cert.backends.protocol",
        "FinishReason": "cert.backends.protocol",
        "Generation": "cert.backends.protocol",
        "GenerationRequest": "cert.backends.protocol",
        "ModelIdentity": "cert.backends.protocol",
        "SamplingParams": "cert.backends.protocol",
        "load_backend": "cert.backends.transformers_local",
    },
)
