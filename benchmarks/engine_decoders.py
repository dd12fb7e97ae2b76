"""Greedy decoding with signals: cert, and what users of transformers write."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import transformers
from engine_signals import batches, measure, measure_in_chunks, padded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine_contestants import Contestant


@dataclass(slots=True)
class Prompt:
    """One prompt: as text, and as the token ids that everybody must read."""

    text: str
    token_ids: list[int]


@dataclass(slots=True)
class Answer:
    """What was written or read after one prompt; signals stay empty where there are none.

    `logprob_sum` is for peers that tell no more than that.
    """

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    logprob_sum: float | None = None


def load_transformers(folder: Path) -> Any:  # noqa: ANN401 - transformers has no types
    """The model in float32, as most people load it."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    ).eval()


def load_cert(folder: Path, contestant: Contestant) -> Any:  # noqa: ANN401 - a Backend
    """Load our backend with the contestant's rows and precision."""
    from cert.backends import load_backend  # noqa: PLC0415 - peers lack it

    quantized = contestant.precision == "int8"
    return load_backend(
        os.fspath(folder),
        device="cpu",
        batch_rows=contestant.rows,
        dtype="float32" if quantized else contestant.precision,
        quantize="8bit" if quantized else "none",
    )


class CertDecoder:
    """Our engine: everything submitted at once."""

    def __init__(self, folder: Path, contestant: Contestant) -> None:
        self._backend = load_cert(folder, contestant)

    def run(self, prompts: Sequence[Prompt], new_tokens: int) -> list[Answer]:
        """Write texts."""
        from cert.backends import GenerationRequest, SamplingParams  # noqa: PLC0415 - as above

        sampling = SamplingParams(max_new_tokens=new_tokens)
        futures = [
            self._backend.submit(
                GenerationRequest(id=str(n), prompt=one.text, sampling=sampling, chat="never")
            )
            for n, one in enumerate(prompts)
        ]
        answers = []
        for future, prompt in zip(futures, prompts, strict=True):
            done = future.result()
            if list(done.prompt_token_ids) != prompt.token_ids:
                raise ValueError("cert reads the prompt as other tokens")
            trace = done.trace
            answers.append(
                Answer(list(trace.token_ids), list(trace.logprobs), list(trace.entropies))
            )
        return answers


class LoopDecoder:
    """`generate(output_scores=True)`, one prompt at a time, signals of what it kept."""

    def __init__(self, folder: Path, _: Contestant) -> None:
        self._model = load_transformers(folder)

    @torch.inference_mode()
    def run(self, prompts: Sequence[Prompt], new_tokens: int) -> list[Answer]:
        """Write texts; the raw logits are measured, since scores may have been processed."""
        answers = []
        for prompt in prompts:
            ids = torch.tensor([prompt.token_ids])
            output = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=new_tokens,
                output_scores=True,
                output_logits=True,
                return_dict_in_generate=True,
            )
            written = output.sequences[0, ids.shape[1] :]
            own, entropies = measure_in_chunks(torch.cat(output.logits), written)
            answers.append(Answer(written.tolist(), own.tolist(), entropies.tolist()))
        return answers


class BatchDecoder:
    """`generate` of batches, left-padded, prompts of like lengths together."""

    def __init__(self, folder: Path, contestant: Contestant) -> None:
        self._model = load_transformers(folder)
        self._rows = contestant.rows
        self._with_scores = contestant.variant == "scores"

    @torch.inference_mode()
    def run(self, prompts: Sequence[Prompt], new_tokens: int) -> list[Answer]:
        """Write texts; with scores also their signals."""
        answers = [Answer() for _ in prompts]
        for group in batches([one.token_ids for one in prompts], self._rows):
            ids, mask = padded([prompts[n].token_ids for n in group], left=True)
            output = self._model.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=new_tokens,
                output_scores=self._with_scores,
                output_logits=self._with_scores,
                return_dict_in_generate=True,
            )
            written = output.sequences[:, ids.shape[1] :]
            for row, n in enumerate(group):
                answers[n] = Answer(self._cut(written[row].tolist()))
            if self._with_scores:
                self._measure(output.logits, written, [answers[n] for n in group])
        return answers

    def _cut(self, token_ids: list[int]) -> list[int]:
        """Leave out what stands after the end token."""
        end = self._model.generation_config.eos_token_id
        return token_ids[: token_ids.index(end) + 1] if end in token_ids else token_ids

    def _measure(
        self, logits: Sequence[torch.Tensor], written: torch.Tensor, answers: Sequence[Answer]
    ) -> None:
        for step, block in enumerate(logits):
            own, entropies = measure(block, written[:, step])
            for answer, logprob, entropy in zip(
                answers, own.tolist(), entropies.tolist(), strict=True
            ):
                if step < len(answer.token_ids):
                    answer.logprobs.append(logprob)
                    answer.entropies.append(entropy)


class ContinuousDecoder:
    """transformers' own continuous batching, `generate_batch`; logprobs, no entropies."""

    def __init__(self, folder: Path, contestant: Contestant) -> None:
        self._model = load_transformers(folder)
        self._rows = contestant.rows

    @torch.inference_mode()
    def run(self, prompts: Sequence[Prompt], new_tokens: int) -> list[Answer]:
        """Write texts."""
        longest = max(len(one.token_ids) for one in prompts) + new_tokens
        block_tokens = 32
        settings = transformers.ContinuousBatchingConfig(
            block_size=block_tokens,
            num_blocks=self._rows * (longest // block_tokens + 1),
            max_batch_tokens=1024,
            return_logprobs=True,
        )
        config = transformers.GenerationConfig(
            do_sample=False,
            max_new_tokens=new_tokens,
            eos_token_id=self._model.generation_config.eos_token_id,
        )
        found = self._model.generate_batch(
            inputs=[one.token_ids for one in prompts],
            generation_config=config,
            continuous_batching_config=settings,
            progress_bar=False,
            warmup=False,
        )
        if len(found) != len(prompts):
            message = f"generate_batch answered {len(found)} of {len(prompts)} prompts"
            raise RuntimeError(message)
        by_prompt: dict[tuple[int, ...], Any] = {
            tuple(one.prompt_ids): one for one in found.values()
        }
        done = [by_prompt[tuple(one.token_ids)] for one in prompts]
        failed = next((one.error for one in done if one.error), None)
        if failed:
            raise RuntimeError(failed)
        return [Answer(list(one.generated_tokens), list(one.logprobs)) for one in done]


DECODERS = {
    "cert": CertDecoder,
    "loop": LoopDecoder,
    "generate": BatchDecoder,
    "continuous": ContinuousDecoder,
}
