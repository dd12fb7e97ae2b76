"""Scoring of given texts: cert, a plain forward pass, and four libraries that do it for people.

Each library gets batches of the size that suited it best on the first texts it saw, and texts in
order of length. What it loads anew for every call is loaded once here.
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Any

import torch
import transformers
from engine_decoders import Answer, load_cert, load_transformers
from engine_signals import batches, measure_in_chunks, padded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine_contestants import Contestant
    from engine_decoders import Prompt

ROWS_TRIED = (1, 4, 16)


class CertScorer:
    """Our engine: everything submitted at once."""

    def __init__(self, folder: Path, contestant: Contestant) -> None:
        self._backend = load_cert(folder, contestant)

    def run(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> list[Answer]:
        """Score texts."""
        from cert.backends import GenerationRequest  # noqa: PLC0415 - peers lack it

        futures = [
            self._backend.submit(
                GenerationRequest(id=str(n), prompt=one.text, response=given.text, chat="never")
            )
            for n, (one, given) in enumerate(zip(prompts, responses, strict=True))
        ]
        traces = [future.result().trace for future in futures]
        return [Answer(list(t.token_ids), list(t.logprobs), list(t.entropies)) for t in traces]


class BatchScorer:
    """What the others share: batches by length, and a size that is found out on the first call."""

    def __init__(self, folder: Path, _: Contestant) -> None:
        self.rows = 0
        self.model = load_transformers(folder)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.tokenizer.pad_token = self.tokenizer.eos_token

    def run(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> list[Answer]:
        """Score texts."""
        if not self.rows:
            self._settle(prompts, responses)
        return self._run(prompts, responses)

    def _settle(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> None:
        spent: dict[int, float] = {}
        for rows in (ROWS_TRIED[-1], *ROWS_TRIED):
            self.rows = rows
            begin = time.perf_counter()
            self._run(prompts, responses)
            spent[rows] = time.perf_counter() - begin
        self.rows = min(spent, key=lambda rows: spent[rows])

    def _run(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> list[Answer]:
        answers = [Answer() for _ in prompts]
        for group in batches([one.token_ids for one in responses], self.rows):
            found = self.score([prompts[n] for n in group], [responses[n] for n in group])
            for n, answer in zip(group, found, strict=True):
                answer.token_ids = responses[n].token_ids
                answers[n] = answer
        return answers

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> list[Answer]:
        """Score one batch."""
        raise NotImplementedError


class ForwardScorer(BatchScorer):
    """transformers' forward pass, right-padded, and the signals of all its logits."""

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> list[Answer]:
        """Score one batch."""
        ids, mask = padded(
            [p.token_ids + r.token_ids for p, r in zip(prompts, responses, strict=True)]
        )
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        answers = []
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            first, length = len(prompt.token_ids) - 1, len(response.token_ids)
            chosen = torch.tensor(response.token_ids)
            own, entropies = measure_in_chunks(logits[row, first : first + length], chosen)
            answers.append(Answer([], own.tolist(), entropies.tolist()))
        return answers


class LmEvalScorer(BatchScorer):
    """lm-eval's `HFLM.loglikelihood`: the sum of logprobs, and whether all tokens were greedy."""

    def __init__(self, folder: Path, contestant: Contestant) -> None:
        from lm_eval.models.huggingface import HFLM  # noqa: PLC0415 - peers alone have it

        super().__init__(folder, contestant)
        self._lm = HFLM(
            pretrained=self.model, tokenizer=self.tokenizer, device="cpu", add_bos_token=False
        )

    def _run(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> list[Answer]:
        """Everything at once: it sorts and batches by itself."""
        from lm_eval.api.instance import Instance  # noqa: PLC0415 - the same

        self._lm.batch_size_per_gpu = self.rows
        requests = [
            Instance("loglikelihood", {}, (prompt.text, response.text), n)
            for n, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
        ]
        found = self._lm.loglikelihood(requests, disable_tqdm=True)
        return [
            Answer(response.token_ids, logprob_sum=float(total))
            for response, (total, _) in zip(responses, found, strict=True)
        ]


class MiniconsScorer(BatchScorer):
    """minicons' `IncrementalLMScorer.compute_stats`: a logprob a token."""

    def __init__(self, folder: Path, contestant: Contestant) -> None:
        from minicons.scorer import IncrementalLMScorer  # noqa: PLC0415 - peers alone have it

        super().__init__(folder, contestant)
        self._scorer = IncrementalLMScorer(self.model, "cpu", tokenizer=self.tokenizer)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> list[Answer]:
        """Score one batch; what stands before the response is one token, which it leaves out."""
        texts = [p.text + r.text for p, r in zip(prompts, responses, strict=True)]
        found = self._scorer.compute_stats(self._scorer.prepare_text(texts))
        return [Answer([], one) for one in found]


class EvaluateScorer(BatchScorer):
    """The perplexity metric of `evaluate`, out of the folder that EVALUATE_PERPLEXITY names."""

    def __init__(self, folder: Path, contestant: Contestant) -> None:
        import evaluate  # noqa: PLC0415 - peers alone have it

        metric = os.environ.get("EVALUATE_PERPLEXITY")
        if not metric:
            raise FileNotFoundError(
                "the package has no metrics in it; give metrics/perplexity of its repository "
                "with --evaluate-perplexity"
            )
        super().__init__(folder, contestant)
        self._metric = evaluate.load(metric)
        self._folder = str(folder)
        loaded, tokenizer = self.model, self.tokenizer
        transformers.AutoModelForCausalLM.from_pretrained = lambda *_, **__: loaded
        transformers.AutoTokenizer.from_pretrained = lambda *_, **__: tokenizer

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> list[Answer]:
        """Score one batch, since it pads all it gets alike; perplexities become sums."""
        texts = [p.text + r.text for p, r in zip(prompts, responses, strict=True)]
        found: list[float] = self._metric.compute(
            predictions=texts,
            model_id=self._folder,
            batch_size=max(2, self.rows),
            add_start_token=False,
            device="cpu",
        )["perplexities"]
        return [
            Answer(logprob_sum=-math.log(perplexity) * len(response.token_ids))
            for perplexity, response in zip(found, responses, strict=True)
        ]


class PolygraphScorer(BatchScorer):
    """lm-polygraph: its white-box model, entropy calculator, and two estimators over them."""

    def __init__(self, folder: Path, contestant: Contestant) -> None:
        from lm_polygraph.estimators import (  # noqa: PLC0415 - peers alone have it
            MeanTokenEntropy,
            Perplexity,
        )
        from lm_polygraph.stat_calculators import EntropyCalculator  # noqa: PLC0415 - the same
        from lm_polygraph.utils.model import WhiteboxModel  # noqa: PLC0415 - the same

        super().__init__(folder, contestant)
        self._white_box = WhiteboxModel(self.model, self.tokenizer)
        self._entropy = EntropyCalculator()
        self._estimators = (Perplexity(), MeanTokenEntropy())

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt], responses: Sequence[Prompt]) -> list[Answer]:
        """Score one batch: its calculators generate, so the given tokens take their place."""
        ids, mask = padded(
            [p.token_ids + r.token_ids for p, r in zip(prompts, responses, strict=True)]
        )
        logprobs = self._white_box(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        stats: dict[str, Any] = {"greedy_log_probs": [], "greedy_log_likelihoods": []}
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            first, length = len(prompt.token_ids) - 1, len(response.token_ids)
            kept = logprobs[row, first : first + length].numpy()
            stats["greedy_log_probs"].append(kept)
            stats["greedy_log_likelihoods"].append(kept[range(length), response.token_ids].tolist())
        stats.update(self._entropy(stats))
        for estimator in self._estimators:
            estimator(stats)
        return [
            Answer([], own, [float(one) for one in entropies])
            for own, entropies in zip(
                stats["greedy_log_likelihoods"], stats["entropy"], strict=True
            )
        ]


SCORERS = {
    "cert": CertScorer,
    "forward": ForwardScorer,
    "lmeval": LmEvalScorer,
    "minicons": MiniconsScorer,
    "evaluate": EvaluateScorer,
    "polygraph": PolygraphScorer,
}
