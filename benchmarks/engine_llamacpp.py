"""llama.cpp through its low-level interface: GGUF files of the same weights, batches of any size.

Signals come from its logits, of every row and step, as in the other loops.
"""

from __future__ import annotations

import ctypes
import json
import os
from typing import TYPE_CHECKING, Any

import gguf
import llama_cpp
import numpy as np
import torch
from engine_decoders import Answer
from engine_signals import batches, measure
from safetensors.torch import load_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from engine_contestants import Contestant
    from engine_decoders import Prompt
    from numpy.typing import NDArray

CONTEXT_TOKENS = 512
"""Of each row; more than any prompt with its continuation here."""
BATCH_TOKENS = 2048
TYPES = {
    "float32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "bfloat16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
KEPT_FLOAT32 = "position_embd.weight"


def write_gguf(folder: Path, precision: str) -> Path:
    """The GGUF file of a model folder in one precision, made if it is not there yet."""
    target = folder.parent / f"{folder.name}-{precision}.gguf"
    if target.exists():
        return target
    config = json.loads((folder / "config.json").read_text())
    unfinished = target.with_suffix(".unfinished")
    kind, file_type = TYPES[precision]
    writer = gguf.GGUFWriter(unfinished, config["model_type"])
    _write_settings(writer, config)
    writer.add_file_type(file_type)
    for name, weights in _tensors(folder, config):
        is_plain = weights.ndim == 1 or name == KEPT_FLOAT32
        wanted = gguf.GGMLQuantizationType.F32 if is_plain else kind
        writer.add_tensor(name, gguf.quantize(weights, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(target)
    return target


def _write_settings(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    if config["model_type"] == "gpt2":
        width, heads = config["n_embd"], config["n_head"]
        writer.add_context_length(config["n_positions"])
        writer.add_block_count(config["n_layer"])
        writer.add_feed_forward_length(config.get("n_inner") or 4 * width)
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    else:
        width, heads = config["hidden_size"], config["num_attention_heads"]
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_dimension_count(width // heads)
        writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_embedding_length(width)
    writer.add_head_count(heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")


def _tensors(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        place, _, ending = name.rpartition(".")
        prefix = ""
        block = place.removeprefix("model.layers.").removeprefix("transformer.h.")
        if block != place:
            number, _, place = block.partition(".")
            prefix = f"blk.{number}."
        weights = tensor.float()
        if config["model_type"] == "gpt2" and "c_" in place and ending == "weight":
            weights = weights.T
        if config["model_type"] == "llama" and place.endswith(("q_proj", "k_proj")):
            is_query = place.endswith("q_proj")
            weights = _interleave(
                weights, config["num_attention_heads" if is_query else "num_key_value_heads"]
            )
        yield f"{prefix}{NAMES[place]}.{ending}", weights.contiguous().numpy()


def _interleave(weights: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp rotates neighbours, transformers halves: rows change places within a head."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, -1)


class LlamaCppDecoder:
    """`rows` sequences side by side; logits of the rows that write, and their signals."""

    def __init__(self, folder: Path, contestant: Contestant) -> None:
        llama_cpp.llama_backend_init()
        path = write_gguf(folder, contestant.precision)
        self._end = json.loads((folder / "config.json").read_text())["eos_token_id"]
        self._vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
        self._rows = contestant.rows
        self._model = llama_cpp.llama_model_load_from_file(
            os.fsencode(path), llama_cpp.llama_model_default_params()
        )
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = CONTEXT_TOKENS * contestant.rows
        settings.n_batch = BATCH_TOKENS
        settings.n_ubatch = 512
        settings.n_seq_max = contestant.rows
        settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
        settings.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        if not self._context:
            raise RuntimeError("llama.cpp made no context")
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)

    def run(self, prompts: Sequence[Prompt], new_tokens: int) -> list[Answer]:
        """Write texts."""
        answers = [Answer() for _ in prompts]
        for group in batches([one.token_ids for one in prompts], self._rows):
            memory = llama_cpp.llama_get_memory(self._context)
            llama_cpp.llama_memory_clear(memory, True)  # noqa: FBT003 - takes no names
            self._run([prompts[n] for n in group], [answers[n] for n in group], new_tokens)
        return answers

    def _run(self, prompts: Sequence[Prompt], answers: Sequence[Answer], new_tokens: int) -> None:
        places = [len(one.token_ids) for one in prompts]
        logits = self._read(prompts)
        live = list(range(len(prompts)))
        for step in range(new_tokens):
            chosen = logits.argmax(dim=-1)
            own, entropies = measure(logits, chosen)
            written = chosen.tolist()
            for row, token, logprob, entropy in zip(
                live, written, own.tolist(), entropies.tolist(), strict=True
            ):
                answers[row].token_ids.append(token)
                answers[row].logprobs.append(logprob)
                answers[row].entropies.append(entropy)
            rows = zip(live, written, strict=True)
            going = [(row, token) for row, token in rows if token != self._end]
            live = [row for row, _ in going]
            if not live or step == new_tokens - 1:
                return
            logits = self._step([(row, places[row] + step, token, True) for row, token in going])

    def _read(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits after each prompt; as many prompts in one batch as fit."""
        found, waiting = [], []
        for row, prompt in enumerate(prompts):
            last = len(prompt.token_ids) - 1
            tokens = [(row, n, token, n == last) for n, token in enumerate(prompt.token_ids)]
            if waiting and len(waiting) + len(tokens) > BATCH_TOKENS:
                found.append(self._step(waiting).clone())
                waiting = []
            waiting += tokens
        return torch.cat([*found, self._step(waiting)])

    def _step(self, tokens: Sequence[tuple[int, int, int, bool]]) -> torch.Tensor:
        """Feed (row, place, token, whether its logits are wanted); a view of those logits."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for n, (row, place, token, is_wanted) in enumerate(tokens):
            batch.token[n] = token
            batch.pos[n] = place
            batch.n_seq_id[n] = 1
            batch.seq_id[n][0] = row
            batch.logits[n] = is_wanted
        status = llama_cpp.llama_decode(self._context, batch)
        if status:
            message = f"llama_decode returned {status}"
            raise RuntimeError(message)
        count = sum(is_wanted for *_, is_wanted in tokens)
        pointer = ctypes.cast(
            llama_cpp.llama_get_logits(self._context), ctypes.POINTER(ctypes.c_float)
        )
        view = np.ctypeslib.as_array(pointer, shape=(count, self._vocab_size))
        return torch.from_numpy(view)


DECODERS = {"llamacpp": LlamaCppDecoder}
