"""Train the embedded reference model: a small Llama on public text, reproducibly.

    python tools/train_reference.py --corpus DIR --work DIR --out cert/reference/model

Stages, each skipped when its product is already there: split (held-out documents by hash of
their text), tokenizer (byte-level BPE on the training split), training (Muon for the matrices,
AdamW for the rest; linear decay), export (bfloat16 safetensors in transformers' layout).

Interrupt it at any time: it continues from the last state it wrote, with the same order of data,
because every batch is drawn from (seed, step) alone. On a GPU it computes under bfloat16 autocast.
On a CPU it stays in float32 unless --bf16 is given: on AVX-512 without AMX, bfloat16 products with
freshly converted weights were measured slower than float32.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
SEPARATOR = "<|doc|>"
SOURCES = {"classics": "classics.txt.xz", "technical": "technical.txt.xz"}
HELD_OUT_PER_MILLE = {"classics": 30, "technical": 60}


@dataclass(frozen=True, slots=True)
class Plan:
    """Every number that decides the result; written beside the weights."""

    seed: int = 20261123
    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 640
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    context: int = 1024
    steps: int = 2400
    batch_tokens: int = 8192
    short_context: int = 512
    short_share: float = 0.85
    technical_repeats: int = 4
    muon_lr: float = 0.02
    adam_lr: float = 0.003
    weight_decay: float = 0.05
    warmup_steps: int = 60
    decay_share: float = 0.6
    clip_norm: float = 1.0


def sha256(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def read_documents(path: Path) -> list[str]:
    """Documents of one corpus file, separated by a line of its own."""
    text = lzma.decompress(path.read_bytes()).decode("utf-8")
    parts = text.split(SEPARATOR)
    return [part.strip("\n") for part in parts if part.strip()]


def is_held_out(source: str, document: str) -> bool:
    """Whether a document is kept out of training: decided by its own bytes, not by its place."""
    value = int(sha256(document.encode("utf-8"))[:8], 16) % 1000
    return value < HELD_OUT_PER_MILLE[source]


def split(corpus: Path) -> dict[str, dict[str, list[str]]]:
    """Training and held-out documents of each source."""
    parts: dict[str, dict[str, list[str]]] = {}
    for source, name in SOURCES.items():
        documents = read_documents(corpus / name)
        parts[source] = {
            "train": [d for d in documents if not is_held_out(source, d)],
            "held_out": [d for d in documents if is_held_out(source, d)],
        }
    return parts


def train_tokenizer(parts: dict[str, dict[str, list[str]]], plan: Plan) -> Tokenizer:
    """Byte-level BPE: lossless for every input, no unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocab_size,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [
        line
        for source, repeats in (("classics", 1), ("technical", plan.technical_repeats))
        for document in parts[source]["train"]
        for line in document.splitlines(keepends=True)
        for _ in range(repeats)
    ]
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A $B",
        special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))],
    )
    return tokenizer


def encode_stream(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray:
    """Token ids of all documents, each begun by the end-of-text token; shape (tokens,)."""
    encodings = tokenizer.encode_batch(documents)
    return np.concatenate([np.asarray(e.ids, dtype=np.uint16) for e in encodings])


class Windows:
    """Windows of `length + 1` tokens in an order that follows from (seed, epoch) alone."""

    def __init__(self, streams: list[tuple[np.ndarray, int]], length: int, seed: int) -> None:
        self._streams = streams
        self._length = length
        self._seed = seed
        self._epoch = -1
        self._order = np.empty((0, 2), dtype=np.int64)
        self.per_epoch = sum(
            (len(stream) - 2 * length - 1) // length * repeats for stream, repeats in streams
        )

    def _load(self, epoch: int) -> None:
        rng = np.random.default_rng([self._seed, epoch, self._length])
        rows = []
        for index, (stream, repeats) in enumerate(self._streams):
            for _ in range(repeats):
                count = (len(stream) - 2 * self._length - 1) // self._length
                starts = rng.integers(0, self._length) + np.arange(count) * self._length
                rows.append(np.stack([np.full(count, index), starts], axis=1))
        order = np.concatenate(rows)
        rng.shuffle(order)
        self._order, self._epoch = order, epoch

    def batch(self, first: int, rows: int) -> torch.Tensor:
        """Windows number `first` to `first + rows`; shape (rows, length + 1)."""
        out = np.empty((rows, self._length + 1), dtype=np.int64)
        for row in range(rows):
            epoch, place = divmod(first + row, self.per_epoch)
            if epoch != self._epoch:
                self._load(epoch)
            index, start = self._order[place]
            out[row] = self._streams[index][0][start : start + self._length + 1]
        return torch.from_numpy(out)


def build_model(plan: Plan) -> LlamaForCausalLM:
    """A Llama of the plan's shape, weights drawn from the plan's seed."""
    torch.manual_seed(plan.seed)
    config = LlamaConfig(
        vocab_size=plan.vocab_size,
        hidden_size=plan.hidden_size,
        intermediate_size=plan.intermediate_size,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.kv_heads,
        max_position_embeddings=plan.context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


def learning_rate_factor(step: int, plan: Plan) -> float:
    """Linear warm-up, constant, linear decay to zero over the last `decay_share` of the steps."""
    if step < plan.warmup_steps:
        return (step + 1) / plan.warmup_steps
    remaining = (plan.steps - step) / (plan.steps * plan.decay_share)
    return min(1.0, max(0.0, remaining))


def build_optimizers(model: LlamaForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embedding and norms."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and "embed_tokens" not in name  # noqa: PLR2004
        (matrices if hidden else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices,
            lr=plan.muon_lr,
            momentum=0.95,
            weight_decay=plan.weight_decay,
            adjust_lr_fn="original",
        ),
        torch.optim.AdamW(others, lr=plan.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def save_state(
    path: Path,
    step: int,
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
) -> None:
    """Weights and optimizer moments in safetensors; renamed into place, so never half a file."""
    tensors: dict[str, torch.Tensor] = {
        f"model/{name}": p.detach().clone() for name, p in model.named_parameters()
    }
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer/{number}/{index}/{key}"] = torch.as_tensor(value).clone()
    scratch = path.with_suffix(".tmp")
    save_file(tensors, scratch, metadata={"step": str(step)})
    scratch.replace(path)


def load_state(
    path: Path,
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
) -> int:
    """Put a saved state back; returns the step to go on from (0 where there is none)."""
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as handle:
        step = int(handle.metadata()["step"])
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model/{name}"])
    for number, optimizer in enumerate(optimizers):
        whole = optimizer.state_dict()
        state: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            kind, *rest = key.split("/")
            if kind == "optimizer" and int(rest[0]) == number:
                state.setdefault(int(rest[1]), {})[rest[2]] = value
        whole["state"] = state
        optimizer.load_state_dict(whole)
    return step


def bits_per_byte(
    model: LlamaForCausalLM, tokenizer: Tokenizer, documents: list[str], context: int
) -> float:
    """Total surprisal of the documents in bits over their UTF-8 bytes.

    Windows overlap by half, and only the new half is counted, so that all but a document's first
    tokens are scored with at least half a context before them.
    """
    device = next(model.parameters()).device
    nats, count = 0.0, 0
    for document in documents:
        ids = tokenizer.encode(document).ids
        count += len(document.encode("utf-8"))
        stride = context // 2
        for start in range(0, max(1, len(ids) - stride), stride):
            window = torch.tensor([ids[start : start + context]], device=device)
            with torch.no_grad():
                logits = model(window[:, :-1]).logits[0].float()
            surprisal = torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="none")
            new = surprisal if start == 0 else surprisal[stride - 1 :]
            nats += new.double().sum().item()
    return nats / math.log(2) / count


def train(  # noqa: PLR0913 - the parts of a run, which meet here
    plan: Plan,
    parts: dict[str, dict[str, list[str]]],
    tokenizer: Tokenizer,
    work: Path,
    *,
    stop_after: int | None,
    compile_model: bool,
    bf16: bool,
) -> LlamaForCausalLM:
    """Run the plan from wherever the last state was written."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    streams = [
        (encode_stream(tokenizer, parts["classics"]["train"]), 1),
        (encode_stream(tokenizer, parts["technical"]["train"]), plan.technical_repeats),
    ]
    model = build_model(plan).to(device)
    optimizers = build_optimizers(model, plan)
    state_path = work / "state.safetensors"
    begin = load_state(state_path, model, optimizers)
    print(
        json.dumps(
            {
                "parameters": sum(p.numel() for p in model.parameters()),
                "tokens": [len(s) for s, _ in streams],
                "from_step": begin,
                "device": str(device),
            }
        ),
        flush=True,
    )
    forward = torch.compile(model) if compile_model else model
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16 or device.type == "cuda")
    short_steps = int(plan.steps * plan.short_share)
    short = Windows(streams, plan.short_context, plan.seed)
    long = Windows(streams, plan.context, plan.seed + 1)
    end = min(plan.steps, stop_after or plan.steps)
    for group in (g for o in optimizers for g in o.param_groups):
        group["base_lr"] = plan.muon_lr if "ns_steps" in group else plan.adam_lr
    clock, last = time.monotonic(), begin
    for step in range(begin, end):
        windows, place = (short, step) if step < short_steps else (long, step - short_steps)
        length = plan.short_context if step < short_steps else plan.context
        rows = plan.batch_tokens // length
        batch = windows.batch(place * rows, rows).to(device)
        with autocast:
            logits = forward(batch[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, plan.vocab_size).float(), batch[:, 1:].reshape(-1)
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip_norm)
        factor = learning_rate_factor(step, plan)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 20 == 0 or step + 1 == end:
            now = time.monotonic()
            rate = (step + 1 - last) * plan.batch_tokens / (now - clock)
            clock, last = now, step + 1
            print(
                json.dumps(
                    {
                        "step": step + 1,
                        "loss": round(loss.item(), 4),
                        "tokens_per_s": round(rate),
                    }
                ),
                flush=True,
            )
        if (step + 1) % 100 == 0 or step + 1 == end:
            save_state(state_path, step + 1, model, optimizers)
    return model


def export(
    model: LlamaForCausalLM, tokenizer: Tokenizer, plan: Plan, record: dict[str, Any], out: Path
) -> None:
    """Write the folder as transformers reads it: bfloat16 weights, tokenizer, the plan."""
    out.mkdir(parents=True, exist_ok=True)
    model = model.to("cpu", torch.bfloat16)
    model.config.use_cache = True
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out)
    (out / "generation_config.json").unlink()  # it would only repeat config.json's token ids
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    (out / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": END_OF_TEXT,
                "eos_token": END_OF_TEXT,
                "pad_token": PAD,
                "model_max_length": plan.context,
                "clean_up_tokenization_spaces": False,
            },
            indent=2,
        )
        + "\n"
    )
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    """Parse, run the stages, print the held-out figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="states and caches")
    parser.add_argument("--out", type=Path, help="model folder; written when training is complete")
    parser.add_argument("--stop-after", type=int, help="stop at this step, to be resumed")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast on a CPU too")
    for name, value in asdict(Plan()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = parser.parse_args()
    plan = Plan(**{name: getattr(arguments, name) for name in asdict(Plan())})
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    parts = split(arguments.corpus)
    tokenizer_path = arguments.work / "tokenizer.json"
    if not tokenizer_path.exists():
        train_tokenizer(parts, plan).save(str(tokenizer_path))
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    model = train(
        plan,
        parts,
        tokenizer,
        arguments.work,
        stop_after=arguments.stop_after,
        compile_model=not arguments.no_compile,
        bf16=arguments.bf16,
    )
    if arguments.stop_after and arguments.stop_after < plan.steps:
        return
    model.eval()
    held_out = {
        source: bits_per_byte(model, tokenizer, parts[source]["held_out"], plan.context)
        for source in SOURCES
    }
    record = {
        "plan": asdict(plan),
        "corpus": {n: sha256((arguments.corpus / n).read_bytes()) for n in SOURCES.values()},
        "held_out": {
            source: {
                "documents": len(parts[source]["held_out"]),
                "bytes": sum(len(d.encode()) for d in parts[source]["held_out"]),
                "sha256": sorted(sha256(d.encode()) for d in parts[source]["held_out"]),
                "bits_per_byte": round(held_out[source], 4),
            }
            for source in SOURCES
        },
        "tokens_seen": plan.steps * plan.batch_tokens,
        "torch": torch.__version__,
    }
    print(json.dumps(record["held_out"], indent=2))
    if arguments.out:
        export(model, tokenizer, plan, record, arguments.out)


if __name__ == "__main__":
    main()
