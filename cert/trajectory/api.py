"""The monitor: prompts in, verdicts out; synchronous, asynchronous, and in batches."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import wait
from typing import TYPE_CHECKING, Self

from cert.backends.folder import REFERENCE_NAME
from cert.core.health import run_checks
from cert.inputs.case import PromptCase
from cert.inputs.ids import content_id
from cert.trajectory.checks import build_checks
from cert.trajectory.engine import HamiltonianEngine
from cert.trajectory.exporter import serve_metrics_once
from cert.trajectory.resources import HamiltonianModelResource
from cert.trajectory.settings import sampling_of, settle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from concurrent.futures import Future
    from types import TracebackType

    from cert.assessment.policy import Policy
    from cert.core.config import CERTConfig
    from cert.core.errors import AnalysisError
    from cert.core.health import HealthReport
    from cert.observability.metrics import MetricsCollector
    from cert.trajectory.resources import Loader
    from cert.trajectory.types import AnalysisResult


class HamiltonianMonitor:
    """Runs prompts against one model and says of each text how sure the model was of it.

    What concerns one prompt is returned, an `AnalysisResult` or an `AnalysisError`, and never
    raised. Safe to use from several threads; requests that are inside together run together.

        with HamiltonianMonitor() as monitor:
            result = monitor.analyze("Explain AI")
    """

    def __init__(  # noqa: PLR0913 - one keyword an option
        self,
        model_name: str | None = None,
        *,
        preload: bool | None = None,
        use_8bit: bool = False,
        device: str | None = None,
        quantize: str | None = None,
        dtype: str | None = None,
        policy: Policy | str | None = None,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] | None = None,
        chat: str | None = None,
        timeout: float | None = None,
        batch_rows: int | None = None,
        cache_size: int | None = None,
        model_aliases: Mapping[str, str] | None = None,
        allow_download: bool | None = None,
        expect_digest: str | None = None,
        max_prompt_chars: int | None = None,
        max_memory_gb: float | None = None,
        config: CERTConfig | None = None,
        metrics: MetricsCollector | None = None,
        loader: Loader | None = None,
    ) -> None:
        """Make a monitor; None means: as configured.

        Args:
            model_name: `reference` (the default: embedded, there to try the tool and to check
                the instrument, not to judge text), `hf:ORG/NAME`, a folder, or an alias.
            preload: Load now, in this call, instead of at the first request.
            use_8bit: The same as `quantize="8bit"`.
            device: `auto`, `cpu` or `cuda`; a missing or too small GPU falls back to the CPU.
            quantize: `none`, `8bit` or `4bit`.
            dtype: `auto`, `float32`, `bfloat16` or `float16`.
            policy: What judges: a policy, its id, or its file; `reference` for the embedded model
                and `default` for others, if none is named.
            max_new_tokens: Tokens to generate at most; fewer where the context has no more room.
            temperature: 0 is greedy.
            top_k: Sample among the k most probable; 0 is all.
            top_p: Sample within this probability mass.
            seed: Keys sampling; None draws one a prompt, and the result says which.
            stop: Texts that end a generation.
            chat: `auto`, `always` or `never`: whether the chat template is applied.
            timeout: Seconds a prompt where `analyze` names none; None is no limit.
            batch_rows: Texts generated side by side at most.
            cache_size: Measurements kept at most; 0 keeps none.
            model_aliases: Local folder by model name.
            allow_download: Whether a hub may be asked for a model that is not here.
            expect_digest: Refuse any other model than the one of this digest.
            max_prompt_chars: Longer prompts and responses are refused.
            max_memory_gb: Refuse a model with which more memory is in use, in 2**30 bytes.
            config: Where the settings not given here come from; None reads the environment.
            metrics: Where requests are counted; None is the process's own registry, which is
                then served on loopback if METRICS_ENABLED says so.
            loader: Makes the backend; None is `cert.backends.load_backend`.

        Raises:
            ConfigurationError: A setting is wrong, or two contradict each other.
            PolicyError: There is no such policy, or it is wrong.
            ModelUnavailableError, GPUOutOfMemoryError, CPUFallbackFailed: With `preload`: the
                model cannot be loaded. Without it, such errors come back with the requests.
        """
        self.config = settle(
            config,
            use_8bit=use_8bit,
            model=model_name,
            preload=preload,
            device=device,
            quantize=quantize,
            dtype=dtype,
            policy=policy if isinstance(policy, str) else None,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            stop=stop,
            chat=chat,
            timeout=timeout,
            batch_rows=batch_rows,
            cache_size=cache_size,
            model_aliases=model_aliases,
            offline=None if allow_download is None else not allow_download,
            max_prompt_chars=max_prompt_chars,
            max_memory_gb=max_memory_gb,
        )
        self.sampling = sampling_of(self.config)
        # Loaded last: a wrong policy should be told before the model takes its half minute.
        self.resource = HamiltonianModelResource(
            preload=False, expect_digest=expect_digest, config=self.config, loader=loader
        )
        self.engine = HamiltonianEngine(
            self.resource,
            cache_size=self.config.cache_size,
            policy=self.config.policy if policy is None else policy,
            metrics=metrics,
        )
        if self.config.metrics_enabled and metrics is None:
            serve_metrics_once(self.config.metrics_port)
        if self.config.preload:
            self.resource.load()

    def analyze(  # noqa: PLR0913 - one keyword an option
        self,
        prompt: str,
        timeout: float | None = None,
        response: str | None = None,
        *,
        id: str | None = None,  # noqa: A002 - a prompt's id, as everywhere else
        policy: Policy | str | None = None,
        correlation_id: str | None = None,
    ) -> AnalysisResult | AnalysisError:
        """Generate a text for a prompt, or take the one given, and measure and judge it.

        Args:
            prompt: Not empty.
            timeout: Seconds, loading included; a text cut off by it comes back as far as it got,
                with `finish_reason` timeout. None is the monitor's own.
            response: Score this text instead of generating one.
            id: Names the prompt in records, and keys sampling together with the seed; None
                derives it from the content.
            policy: Judge by this one instead of the monitor's.
            correlation_id: Ties log lines and records together; None takes the current one, or
                draws one.

        Returns:
            The result, or the error: see `HamiltonianEngine.submit`.
        """
        return self.engine.analyze(
            _case(prompt, response, id),
            sampling=self.sampling,
            timeout=self.config.timeout if timeout is None else timeout,
            chat=self.config.chat,
            policy=policy,
            correlation_id=correlation_id,
        )

    async def analyze_async(  # noqa: PLR0913 - as `analyze`
        self,
        prompt: str,
        timeout: float | None = None,  # noqa: ASYNC109 - ends the text, not the wait for it
        response: str | None = None,
        *,
        id: str | None = None,  # noqa: A002 - as in `analyze`
        policy: Policy | str | None = None,
        correlation_id: str | None = None,
    ) -> AnalysisResult | AnalysisError:
        """Do what `analyze` does without blocking the event loop; cancelling takes it back."""
        submitting = asyncio.ensure_future(
            asyncio.to_thread(  # tokenizing a long prompt takes a while
                self.engine.submit,
                _case(prompt, response, id),
                sampling=self.sampling,
                timeout=self.config.timeout if timeout is None else timeout,
                chat=self.config.chat,
                policy=policy,
                correlation_id=correlation_id,
            )
        )
        try:
            future = await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(_take_back)
            raise
        return await asyncio.wrap_future(future)

    def analyze_batch(
        self,
        prompts: Iterable[str],
        timeout: float | None = 60.0,
        *,
        policy: Policy | str | None = None,
    ) -> list[AnalysisResult | AnalysisError]:
        """Analyse prompts side by side.

        Args:
            prompts: Any number; all are held in memory. `cert batch` is for more than that.
            timeout: Seconds for all of them together, loading included; None is no limit. What
                is being written then comes back as far as it got, with `finish_reason` timeout;
                what has no token yet as a `GenerationTimeout`.
            policy: Judge by this one instead of the monitor's.

        Returns:
            Results and errors in the order of the prompts.

        Raises:
            TypeError: `prompts` is one string.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts is one string; a list of them is expected")
        cases = [_case(prompt, None, None) for prompt in prompts]
        if not cases:
            return []
        start = time.monotonic()
        # One wait for the model here, rather than one timer a prompt in the engine.
        wait((self.resource.request_backend(),), timeout)
        futures: list[Future[AnalysisResult | AnalysisError]] = []
        try:
            for case in cases:
                left = None if timeout is None else timeout - (time.monotonic() - start)
                futures.append(
                    self.engine.submit(
                        case,
                        sampling=self.sampling,
                        timeout=left,
                        chat=self.config.chat,
                        policy=policy,
                    )
                )
            return [future.result() for future in futures]
        except BaseException:  # an interrupt: nobody waits for the others any more
            for future in futures:
                future.cancel()
            raise

    def health_check(self, timeout: float = 30.0) -> HealthReport:
        """Look whether the model is there, answers, has memory, and measures right.

        `checks` holds `model`, `inference` (one token, generated now), `memory`, and for the
        embedded model `instrument` (a text scored now, against readings pinned in float64). A
        model that is not loaded stays so, and the report is at best degraded.

        Args:
            timeout: Seconds that a forward pass may take, waiting included.
        """
        return run_checks(
            build_checks(
                self.resource,
                is_reference=self.config.model == REFERENCE_NAME,
                timeout_s=timeout,
            )
        )

    def close(self) -> None:
        """Unload the model; requests in flight end as cancelled. The next request loads again."""
        self.resource.unload()

    def __enter__(self) -> Self:
        """Load the model."""
        self.resource.load()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unload it, whatever happened."""
        self.close()


def _take_back(submitting: asyncio.Future[Future[AnalysisResult | AnalysisError]]) -> None:
    if not submitting.cancelled() and submitting.exception() is None:
        submitting.result().cancel()


def _case(prompt: str, response: str | None, given: str | None) -> PromptCase:
    """A case of whatever the caller gave; the engine refuses what is no text."""
    try:
        identity = content_id(prompt, response) if given is None else given
    except (AttributeError, UnicodeEncodeError):
        identity = "refused"
    return PromptCase(id=identity, text=prompt, response=response)
