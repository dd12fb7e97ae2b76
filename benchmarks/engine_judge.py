"""transformers' forward pass in float32 over what others wrote: what they should have said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from engine_decoders import load_transformers
from engine_signals import batches, measure, padded
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROWS = 16


class Judge:
    """Tokens of texts, and the truth about tokens."""

    def __init__(self, folder: Path) -> None:
        self._model = load_transformers(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._end = json.loads((folder / "config.json").read_text())["eos_token_id"]
        self._known: dict[tuple[int, ...], dict[str, list[float]]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Encode `texts` (prompts) and `responses`, or tell the truth about `pairs` of both."""
        if "pairs" in request:
            return {"truth": self.truth(request["pairs"])}
        return {
            "texts": [self._tokenizer.encode(one).ids for one in request["texts"]],
            "responses": [
                self._tokenizer.encode(one, add_special_tokens=False).ids
                for one in request.get("responses", [])
            ],
            "end": self._end,
        }

    @torch.inference_mode()
    def truth(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[dict[str, list[float]]]:
        """Logprob, entropy, and distance to the largest logit of every token after each prompt."""
        wholes = [[*prompt, *written] for prompt, written in pairs]
        keys = [(len(prompt), *whole) for (prompt, _), whole in zip(pairs, wholes, strict=True)]
        new = sorted({key for key in keys if key not in self._known})
        for group in batches(new, ROWS):
            chosen = [new[n] for n in group]
            for key, found in zip(chosen, self._measure(chosen), strict=True):
                self._known[key] = found
        return [self._known[key] for key in keys]

    def _measure(self, keys: Sequence[tuple[int, ...]]) -> list[dict[str, list[float]]]:
        ids, mask = padded([key[1:] for key in keys])
        hidden = self._model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        head = self._model.get_output_embeddings()
        found = []
        for row, (prompt_length, *whole) in enumerate(keys):
            states = hidden[row, prompt_length - 1 : len(whole) - 1]
            chosen = torch.tensor(whole[prompt_length:])
            logits = head(states)
            own, entropies = measure(logits, chosen)
            gaps = logits.max(dim=-1).values - logits.gather(1, chosen[:, None])[:, 0]
            found.append(
                {
                    "logprobs": own.tolist(),
                    "entropies": entropies.tolist(),
                    "gaps": gaps.tolist(),
                }
            )
        return found
