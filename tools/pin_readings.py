"""Pin the readings of the embedded reference model: what `cert health` holds a machine against.

    python tools/pin_readings.py                   writes cert/reference/readings.json
    python tools/pin_readings.py --check           only says how far the pinned ones are off

The readings are computed with transformers' own forward pass over float64 weights, and with
`cert.signals.rows.row_signals`: neither the decode loop nor its kernel takes part. (transformers
computes norms, rotary angles and the attention's softmax of Llama models in float32 whatever the
weights are; the error of that is below the tolerances.)

A tolerance is what the local backend deviates by on this machine, times a safety factor, rounded up
to one digit. In float32 the deviation comes from the order of additions, which other processors
choose otherwise, so the factor is large; with fewer bits it comes from rounding the weights, which
is the same everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from transformers import AutoModelForCausalLM

from cert.backends.folder import REFERENCE_FOLDER
from cert.backends.protocol import GenerationRequest
from cert.backends.transformers_local import load_backend
from cert.core.errors import CertError
from cert.reference.readings import Readings, compare_readings, load_readings
from cert.signals.rows import row_signals

if TYPE_CHECKING:
    from cert.backends.protocol import Generation

READINGS_FILE = Path(__file__).resolve().parents[1] / "cert" / "reference" / "readings.json"
PROMPT = "The surveyor opened her notebook, wrote down the date, and began:"
RESPONSE = """ "We measured the river at three places. At the bridge it was 41.7 metres wide;
at the mill, 38.2; and where the old road once crossed it, nobody could say, for the marks were
gone." She paused. If the marks were gone, what had the others measured in 1887?

def mean(values):
    return sum(values) / len(values)

Überraschung: the café's clock — an honest one — said ten to four, and so did she. It was the best
of times; it was a number with an error of its own, and she wrote that down, too."""
SETTINGS: tuple[tuple[dict[str, Any], float], ...] = (
    ({"dtype": "float32"}, 20.0),
    ({"dtype": "bfloat16"}, 4.0),
    ({"dtype": "float16"}, 4.0),
    ({"dtype": "float32", "quantize": "8bit"}, 3.0),
)
"""What is measured, each with its safety factor."""


def score(settings: dict[str, Any]) -> tuple[str, Generation]:
    """Score the text with the local backend; returns what computed, as health looks it up."""
    backend = load_backend("reference", device="cpu", **settings)
    try:
        request = GenerationRequest("pin", PROMPT, response=RESPONSE, chat="never")
        generation = backend.submit(request).result()
        identity = backend.identity
    finally:
        backend.close()
    return identity.quantization or identity.dtype, generation


@torch.inference_mode()
def read_in_float64(
    folder: Path, prompt_ids: tuple[int, ...], response_ids: tuple[int, ...]
) -> tuple[list[float], list[float]]:
    """Logprobs and entropies of the response, by transformers' plain forward pass.

    Returns:
        Nats, one a token of the response each.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float64,
        attn_implementation="eager",
        local_files_only=True,
        use_safetensors=True,
    )
    ids = torch.tensor([[*prompt_ids, *response_ids]])
    logits = model.eval()(input_ids=ids, use_cache=False).logits[0].numpy()
    rows = logits[len(prompt_ids) - 1 : -1]
    signals = [row_signals(row, token) for row, token in zip(rows, response_ids, strict=True)]
    return [one.logprob for one in signals], [one.entropy for one in signals]


def round_up(value: float) -> float:
    """Round up to one significant digit.

    >>> round_up(0.00123), round_up(0.9), round_up(2.0)
    (0.002, 0.9, 2.0)
    """
    exponent = math.floor(math.log10(value))
    digit = math.ceil(round(value / 10.0**exponent, 9))
    return float(f"{digit}e{exponent}")


def build_readings() -> Readings:
    """Read the text in float64 and measure by how much each dtype is off."""
    _, generation = score({"dtype": "float32"})
    prompt_ids, response_ids = generation.prompt_token_ids, generation.trace.token_ids
    logprobs, entropies = read_in_float64(REFERENCE_FOLDER, prompt_ids, response_ids)
    weights = (REFERENCE_FOLDER / "model.safetensors").read_bytes()
    pinned = Readings(
        prompt=PROMPT,
        response=RESPONSE,
        prompt_token_ids=prompt_ids,
        token_ids=response_ids,
        logprobs=tuple(logprobs),
        entropies=tuple(entropies),
        tolerances={},
        model_digest="sha256:" + hashlib.sha256(weights).hexdigest(),
    )
    tolerances = {}
    for settings, safety in SETTINGS:
        try:
            computed, generation = score(settings)
        except CertError as error:
            print(f"{settings}: {error.message}", file=sys.stderr)
            continue
        found = compare_readings(generation.trace, pinned, computed)
        worst = max(found.max_logprob_deviation, found.max_entropy_deviation)
        tolerances[computed] = round_up(worst * safety)
        print(f"{computed}: off by {worst:.3g} nats, tolerance {tolerances[computed]:g}")
    return msgspec.structs.replace(pinned, tolerances=tolerances)


def check() -> bool:
    """Say for each dtype how far this machine's readings are off; True if all are fine."""
    pinned = load_readings(READINGS_FILE)
    fine = True
    for settings, _ in SETTINGS:
        computed, generation = score(settings)
        found = compare_readings(generation.trace, pinned, computed)
        fine = fine and found.ok
        print(f"{computed}: {found}")
    return fine


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Pin the reference model's readings.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if parser.parse_args().check:
        return 0 if check() else 1
    readings = build_readings()
    READINGS_FILE.write_bytes(msgspec.json.format(msgspec.json.encode(readings), indent=0) + b"\n")
    print(f"{len(readings.token_ids)} readings -> {READINGS_FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
