"""A model as a resource: loaded once, shared by every thread, freed when told."""

from __future__ import annotations

import contextvars
import gc
import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from cert.core.errors import (
    CertError,
    CPUFallbackFailed,
    GPUOutOfMemoryError,
    ModelNotLoaded,
    ModelUnavailableError,
)
from cert.core.extras import missing_extra
from cert.core.resources import BYTES_PER_GB, ManagedResource, read_memory
from cert.observability.redaction import redact
from cert.observability.tracing import span
from cert.trajectory.settings import settle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from cert.backends.protocol import Backend
    from cert.core.config import CERTConfig

logger = logging.getLogger(__name__)


class Loader(Protocol):
    """What makes a backend of a model's name; `cert.backends.load_backend` is one."""

    def __call__(  # noqa: PLR0913 - one keyword an option
        self,
        spec: str,
        *,
        device: str,
        dtype: str,
        quantize: str,
        batch_rows: int,
        aliases: Mapping[str, str],
        allow_download: bool,
        expect_digest: str | None,
        max_prompt_chars: int,
    ) -> Backend:
        """Load a model; see `cert.backends.transformers_local.load_backend`."""
        ...


class HamiltonianModelResource(ManagedResource["Backend"]):
    """One model's life: load, use, unload. Thread-safe.

    However many threads ask, the model is loaded once; a failed attempt is repeated when the next
    one asks. A device that is missing or too small is replaced by the CPU; `fallbacks` and the
    log say so. A `with` block loads and unloads. Unloading ends requests in flight as cancelled,
    and the next use loads again.

    >>> HamiltonianModelResource("reference").is_loaded
    False
    """

    def __init__(  # noqa: PLR0913 - one keyword an option
        self,
        model_name: str | None = None,
        *,
        preload: bool | None = None,
        device: str | None = None,
        use_8bit: bool = False,
        quantize: str | None = None,
        dtype: str | None = None,
        batch_rows: int | None = None,
        model_aliases: Mapping[str, str] | None = None,
        allow_download: bool | None = None,
        expect_digest: str | None = None,
        max_prompt_chars: int | None = None,
        max_memory_gb: float | None = None,
        lazy: bool = True,
        config: CERTConfig | None = None,
        loader: Loader | None = None,
    ) -> None:
        """Describe a model, and load it if `preload` says so. None means: as configured.

        Args:
            model_name: `reference`, `hf:ORG/NAME`, a folder, or an alias.
            preload: Load now, in this call, instead of at first use.
            device: `auto`, `cpu` or `cuda`.
            use_8bit: The same as `quantize="8bit"`.
            quantize: `none`, `8bit` or `4bit`.
            dtype: `auto`, `float32`, `bfloat16` or `float16`.
            batch_rows: Texts generated side by side at most.
            model_aliases: Local folder by model name.
            allow_download: Whether a hub may be asked for a model that is not here.
            expect_digest: Refuse any other model than the one of this digest.
            max_prompt_chars: Longer prompts and responses are refused.
            max_memory_gb: Refuse a model with which this process, or its part of the device,
                takes more; in 2**30 bytes.
            lazy: Whether first use loads; otherwise only `load` does.
            config: Where the settings not given here come from; None reads the environment.
            loader: Makes the backend; None is `cert.backends.load_backend`.

        Raises:
            ConfigurationError: A setting is wrong, or two contradict each other.
            Exception: With `preload`: as `load`.
        """
        self.config = settle(
            config,
            use_8bit=use_8bit,
            model=model_name,
            preload=preload,
            device=device,
            quantize=quantize,
            dtype=dtype,
            batch_rows=batch_rows,
            model_aliases=model_aliases,
            offline=None if allow_download is None else not allow_download,
            max_prompt_chars=max_prompt_chars,
            max_memory_gb=max_memory_gb,
        )
        super().__init__(self.config.model)
        self.lazy = lazy
        self._expect_digest = expect_digest
        self._loader = loader
        self._starting = threading.Lock()
        self._pending: Future[Backend] | None = None
        self._fallbacks: tuple[str, ...] = ()
        self._load_error: Exception | None = None
        if self.config.preload:
            self.load()

    @property
    def model_name(self) -> str:
        """The model as the user named it."""
        return self.name

    @property
    def backend(self) -> Backend:
        """The loaded model; loads it first, where `lazy` allows.

        Raises:
            ModelNotLoaded: It is not loaded, and `lazy` is False.
            ModelUnavailableError: There is no such model, it is refused, or it is too large.
            GPUOutOfMemoryError: The CPU has too little memory.
            CPUFallbackFailed: The GPU had too little memory, and the CPU could not load it.
        """
        if self.lazy:
            self.load()
        return self.handle

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What loading did otherwise than asked, for example `("device:cuda->cpu",)`."""
        return self._fallbacks

    @property
    def load_error(self) -> Exception | None:
        """Why the last attempt to load failed; None if it did not, or there was none."""
        return self._load_error

    @property
    def memory_bytes(self) -> int:
        """Bytes that weights and caches hold on the device; 0 while nothing is loaded."""
        try:
            return self.handle.memory_bytes()
        except ModelNotLoaded:
            return 0

    def request_backend(self) -> Future[Backend]:
        """The backend as a future, for who must not wait; begins to load where `lazy` allows.

        Every caller meanwhile gets the same future, and none can cancel it. It raises what
        `backend` raises.
        """
        with self._starting:
            if self._pending is not None:
                return self._pending
            future: Future[Backend] = Future()
            future.set_running_or_notify_cancel()
            try:
                future.set_result(self.handle)
            except ModelNotLoaded as error:
                if not self.lazy:
                    future.set_exception(error)
                    return future
                self._pending = future
                # The correlation id goes along with whoever made it load.
                context = contextvars.copy_context()
                thread = threading.Thread(
                    target=context.run, args=(self._fulfil, future), name="cert-load", daemon=True
                )
                thread.start()
            return future

    def _fulfil(self, future: Future[Backend]) -> None:
        try:
            backend = self.load().handle
        except Exception as error:  # noqa: BLE001 - it reaches everybody who waits
            with self._starting:
                self._pending = None
            future.set_exception(error)
        else:
            with self._starting:
                self._pending = None
            future.set_result(backend)

    def _acquire(self, cleanup: ExitStack) -> Backend:
        self._fallbacks, self._load_error = (), None
        try:
            with span("model load", {"gen_ai.request.model": redact(self.name)}):
                backend = self._load_with_fallback()
            cleanup.callback(backend.close)
            self._require_fit(backend)
        except Exception as error:
            self._load_error = error
            raise
        identity = backend.identity
        logger.info(
            "model loaded",
            extra={
                "model": self.name,
                "digest": identity.digest,
                "device": identity.device,
                "dtype": identity.dtype,
                "quantization": identity.quantization,
                "memory_bytes": backend.memory_bytes(),
            },
        )
        return backend

    def _load_with_fallback(self) -> Backend:
        device: str = self.config.device
        if device == "cuda" and not cuda_available():
            device = self._fall_back("no CUDA device was found")
        try:
            return self._load_on(device)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {error}"[:500]
            if device == "cpu" or not cuda_available():
                raise GPUOutOfMemoryError(
                    f"the CPU has too little memory for {self.name}: {reason}",
                    hint="a smaller model, or 8-bit weights, take less",
                ) from error
        # Outside of the handler: the traceback kept what had been loaded on the device so far.
        _release_device_memory()
        self._fall_back(reason)
        try:
            return self._load_on("cpu")
        except Exception as error:
            raise CPUFallbackFailed(
                f"{self.name} fits neither: {reason}; then, on the CPU: {error}"[:1000]
            ) from error

    def _load_on(self, device: str) -> Backend:
        loader: Loader
        if self._loader is None:
            try:
                from cert.backends.transformers_local import load_backend  # noqa: PLC0415 - torch
            except ModuleNotFoundError as error:
                if error.name is None or error.name.startswith("cert"):
                    raise  # a bug, and no missing library
                message = f"running a local model needs {error.name}"
                raise missing_extra(message, "local") from error
            loader = load_backend
        else:
            loader = self._loader
        config = self.config
        return loader(
            self.name,
            device=device,
            dtype=config.dtype,
            quantize=config.quantize,
            batch_rows=config.batch_rows,
            aliases=config.model_aliases,
            allow_download=not config.offline,
            expect_digest=self._expect_digest,
            max_prompt_chars=config.max_prompt_chars,
        )

    def _fall_back(self, reason: str) -> str:
        logger.warning("falling back to the CPU", extra={"model": self.name, "reason": reason})
        self._fallbacks = ("device:cuda->cpu",)
        return "cpu"

    def _require_fit(self, backend: Backend) -> None:
        limit_gb = self.config.max_memory_gb
        taken = max(backend.memory_bytes(), read_memory().rss_bytes or 0)
        if limit_gb is not None and taken > limit_gb * BYTES_PER_GB:
            raise ModelUnavailableError(
                f"with {self.name}, {taken / BYTES_PER_GB:.2f} GB are in use, and MAX_MEMORY_GB "
                f"allows {limit_gb:g} GB",
                hint="raise MAX_MEMORY_GB, or take a smaller model or 8-bit weights",
            )


def cuda_available() -> bool:
    """Whether torch sees a CUDA device; False without torch."""
    try:
        import torch  # noqa: PLC0415 - heavy, and absent from the light core
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _release_device_memory() -> None:
    import torch  # noqa: PLC0415 - as above; it was there to find the device

    gc.collect()
    torch.cuda.empty_cache()


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, CertError):
        return isinstance(error, GPUOutOfMemoryError)
    from cert.backends.transformers_local import is_out_of_memory  # noqa: PLC0415 - loads torch

    return is_out_of_memory(error)
