"""OpenVINO through optimum-intel: the folder converted once, `generate` of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from engine_decoders import BatchDecoder

if TYPE_CHECKING:
    from pathlib import Path

    from engine_contestants import Contestant

ACTIVATIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


class OpenVinoDecoder(BatchDecoder):
    """`OVModelForCausalLM.generate` with raw logits kept, and their signals."""

    def __init__(self, folder: Path, contestant: Contestant) -> None:
        from optimum.intel import OVModelForCausalLM  # noqa: PLC0415 - peers alone have it

        kind: Any = OVModelForCausalLM
        self._model = kind.from_pretrained(
            folder,
            export=True,
            load_in_8bit=contestant.precision == "int8",
            ov_config={
                "INFERENCE_PRECISION_HINT": ACTIVATIONS[contestant.precision],
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            },
        )
        self._rows = contestant.rows
        self._with_scores = True


DECODERS = {"openvino": OpenVinoDecoder}
