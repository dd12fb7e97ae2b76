"""Loading: the tensors of the folder, in our decoder or transformers', with an exact identity."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import torch
from model_factory import FAMILIES, build_tiny_model
from safetensors.torch import load_file, save_file

from cert.backends import loading
from cert.backends.causal_lm import UNLIMITED_CONTEXT_TOKENS
from cert.backends.decoder import Decoder
from cert.backends.folder import inspect_folder
from cert.backends.loading import load_model
from cert.backends.manifest import hash_files, manifest_digest
from cert.core.errors import (
    ConfigurationError,
    GPUOutOfMemoryError,
    ModelRefusedError,
    ModelUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cert.backends.causal_lm import CausalLM
    from cert.backends.loading import LoadedModel

IDS = torch.tensor([[5, 77, 130, 9, 255, 18]])


def load(folder: Path, **options: object) -> LoadedModel:
    return load_model(inspect_folder(folder), name="tiny", **options)  # type: ignore[arg-type]


def edit(path: Path, **values: object) -> None:
    document = json.loads(path.read_text())
    document.update(values)
    path.write_text(json.dumps({k: v for k, v in document.items() if v != "(removed)"}))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@torch.inference_mode()
def logits(model: CausalLM) -> torch.Tensor:
    return model.head(model.hidden(IDS.tolist(), [0] * len(IDS)))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("llama") / "model", "llama")


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama, tmp_path / "model")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"shard_size": "20KB"}, {"tie_embeddings": True}])
@pytest.mark.parametrize("own_decoder", [True, False])
def test_logits_are_those_of_transformers(
    family: str, options: dict[str, object], own_decoder: bool, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    folder = build_tiny_model(tmp_path / "model", family, **options)  # type: ignore[arg-type]
    loaded = load(folder, own_decoder=own_decoder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    with torch.inference_mode():
        expected = theirs(input_ids=IDS).logits[0]
    torch.testing.assert_close(logits(loaded.model), expected, atol=2e-5, rtol=1e-5)
    assert isinstance(loaded.model, Decoder) is own_decoder
    assert loaded.identity.architecture == type(theirs).__name__
    assert loaded.identity.parameters == theirs.num_parameters()
    assert loaded.identity.attention == ("cert-sdpa" if own_decoder else "sdpa")
    assert ("transformers" in loaded.identity.versions) is not own_decoder
    assert not loaded.model.head(torch.zeros(1, 32)).requires_grad


def test_weights_without_the_bodys_prefix_are_found_as_in_the_gpt2_of_the_hub(
    tmp_path: Path,
) -> None:
    folder = build_tiny_model(tmp_path / "model", "gpt2")
    expected = logits(load(folder).model)

    def as_on_the_hub(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 256, 256).tril()

    edit_tensors(folder, as_on_the_hub)
    assert torch.equal(logits(load(folder).model), expected)


def test_models_that_are_loaded_at_once_are_whole(llama: Path, tmp_path: Path) -> None:
    gpt2 = tmp_path / "gpt2"
    build_tiny_model(gpt2, family="gpt2")
    alone = {folder: logits(load(folder).model) for folder in (llama, gpt2)}
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            folders = [llama, gpt2, llama, gpt2]
            for folder, loaded in zip(folders, pool.map(load, folders), strict=True):
                assert torch.equal(logits(loaded.model), alone[folder])


def test_the_identity_says_what_was_loaded(llama: Path) -> None:
    identity = load(llama).identity
    names = ["config.json", "generation_config.json", "model.safetensors"]
    names += ["tokenizer.json", "tokenizer_config.json"]
    files = hash_files(llama, names)
    assert identity.name == "tiny"
    assert identity.files == files
    assert identity.digest == manifest_digest(files)
    tokenizer = {name: digest for name, digest in files.items() if "tokenizer" in name}
    assert identity.tokenizer_digest == manifest_digest(tokenizer)
    assert identity.dtype == "float32"
    assert identity.device == "cpu"
    assert identity.quantization is None
    assert identity.vocab_size == 300
    assert identity.max_context_tokens == 256
    assert identity.versions["torch"] == torch.__version__
    assert "bitsandbytes" not in identity.versions


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]
)
def test_any_byte_of_any_file_changes_the_digest(name: str, llama: Path, copy: Path) -> None:
    with (copy / name).open("a") as file:
        file.write("\n")
    assert load(copy).identity.digest != load(llama).identity.digest


def test_an_extra_file_does_not_change_the_digest(llama: Path, copy: Path) -> None:
    (copy / "README.md").write_text("# hello")
    (copy / "modeling_evil.py").write_text("raise SystemExit")
    assert load(copy).identity.digest == load(llama).identity.digest


def test_the_expected_digest_is_checked_before_anything_is_built(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = load(llama).identity.digest
    assert load(llama, expect_digest=digest).identity.digest == digest
    monkeypatch.delattr(loading, "_read_tensors")
    with pytest.raises(ModelRefusedError, match=rf"has the digest {digest}, expected sha256:00"):
        load(llama, expect_digest="sha256:00")


def test_a_file_that_changes_meanwhile_is_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = loading._read_tensors

    def read_and_change(folder: object) -> dict[str, torch.Tensor]:
        os.utime(copy / "tokenizer.json", (1, 1))
        return read(folder)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "_read_tensors", read_and_change)
    with pytest.raises(ModelRefusedError, match="changed while it was loaded"):
        load(copy)


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("own_decoder", [True, False])
def test_the_dtype_is_the_one_asked_for(
    stored: str, dtype: str, own_decoder: bool, tmp_path: Path
) -> None:
    folder = build_tiny_model(tmp_path / "model", "qwen2", dtype=stored)
    loaded = load(folder, dtype=dtype, device="cpu", own_decoder=own_decoder)
    expected = "float32" if dtype == "auto" else dtype
    assert loaded.identity.dtype == expected
    computed = torch.float32 if own_decoder else getattr(torch, expected)
    assert logits(loaded.model).dtype is computed
    # No less than 16 bits a parameter; the few biases of laid out layers are not counted.
    assert loaded.model.nbytes() > 1.9 * loaded.identity.parameters
    assert loading.stored_dtype(inspect_folder(folder)) == stored


def test_on_a_gpu_the_stored_dtype_is_the_default(tmp_path: Path) -> None:
    folder = inspect_folder(build_tiny_model(tmp_path / "model", "gpt2", dtype="bfloat16"))
    assert loading._dtype("auto", torch.device("cuda"), folder) is torch.bfloat16
    assert loading._dtype("float32", torch.device("cuda"), folder) is torch.float32


@pytest.mark.parametrize("dtype", ["float64", "int8", ""])
def test_other_dtypes_are_a_configuration_error(dtype: str, llama: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no dtype"):
        load(llama, dtype=dtype)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "there is no device 'gpu'"),
        ("meta", "'meta' is not supported"),
        ("cuda:99", "there is no device 'cuda:99'"),
    ],
)
def test_other_devices_are_a_configuration_error(device: str, message: str, llama: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(llama, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there_is_a_configuration_error(llama: Path) -> None:
    with pytest.raises(ConfigurationError, match="torch sees 0 GPUs") as caught:
        load(llama, device="cuda")
    assert caught.value.hint is not None


def test_a_gpu_that_is_too_small_is_out_of_memory() -> None:
    device = torch.device("cuda")
    with (
        pytest.raises(GPUOutOfMemoryError, match="does not fit on cuda"),
        loading._memory_errors(device),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_weights_cut_after_they_were_checked_are_unavailable(copy: Path) -> None:
    folder = inspect_folder(copy)
    os.truncate(copy / "model.safetensors", 1_000)
    with pytest.raises(ModelUnavailableError, match=r"model\.safetensors: SafetensorError"):
        load_model(folder, name="tiny")


# --- tensors that are not those of the architecture


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("model.norm.weight"), r"tensors that are missing: model\.norm\.weight"),
        (drop("lm_head.weight"), r"tensors that are missing: lm_head\.weight"),
        (
            lambda tensors: tensors.update({"model.extra": torch.ones(2)}),
            r"tensors that belong nowhere: model\.extra",
        ),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}),
            r"tensors that have another shape: model\.norm\.weight",
        ),
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.1." in name],
            r"tensors that are missing: model\.layers\.1\..* and 4 more",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, copy: Path
) -> None:
    edit_tensors(copy, change)
    with pytest.raises(ModelRefusedError, match=message):
        load(copy)


def test_a_model_much_larger_than_its_file_is_not_allocated(copy: Path) -> None:
    edit(copy / "config.json", hidden_size=65_536, intermediate_size=262_144, head_dim=16_384)
    with pytest.raises(ModelRefusedError, match="parameters; the files hold"):
        load(copy)


def test_a_file_without_floating_point_weights_is_no_model(copy: Path) -> None:
    save_file({"a": torch.ones(3, dtype=torch.int32)}, copy / "model.safetensors")
    with pytest.raises(ModelUnavailableError, match="no floating-point weights"):
        loading.stored_dtype(inspect_folder(copy))


# --- configurations


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "no_such_type"}, "knows no model type 'no_such_type'"),
        ({"hidden_act": "no_such_act"}, "makes no LlamaForCausalLM"),
        ({"hidden_size": "wide"}, "config.json does not fit 'llama'"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "not a LlamaForCausalLM"),
        ({"architectures": ["os"]}, "holds a os, not a LlamaForCausalLM"),
        ({"model_type": "vit", "architectures": None}, "'vit' has no causal language model"),
    ],
)
def test_a_configuration_of_no_causal_language_model(
    values: dict[str, object], message: str, copy: Path
) -> None:
    edit(copy / "config.json", **values)
    with pytest.raises(ModelUnavailableError, match=message) as caught:
        load(copy)
    assert caught.value.message.isprintable()


def test_the_file_does_not_choose_attention_or_dtype(copy: Path) -> None:
    edit(
        copy / "config.json",
        _attn_implementation="flash_attention_2",
        attn_implementation="flex_attention",
        dtype="float16",
        torch_dtype="bfloat16",
        architectures="(removed)",
    )
    assert load(copy, own_decoder=False).identity.attention == "sdpa"
    loaded = load(copy)
    assert loaded.identity.attention == "cert-sdpa"
    assert loaded.identity.dtype == "float32"
    assert loaded.identity.architecture == "LlamaForCausalLM"


def test_an_adapter_in_the_folder_is_not_applied(llama: Path, copy: Path) -> None:
    (copy / "adapter_config.json").write_text('{"base_model_name_or_path": "org/other"}')
    (copy / "adapter_model.safetensors").write_bytes(b"")
    assert torch.equal(logits(load(copy).model), logits(load(llama).model))


def test_a_limit_that_is_not_stated_is_unlimited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    folder = build_tiny_model(tmp_path / "model", "gpt2")
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        (folder / name).unlink()
    config = BloomConfig(vocab_size=300, hidden_size=16, n_layer=1, n_head=2)
    BloomForCausalLM(config).save_pretrained(folder)
    with pytest.raises(ModelRefusedError, match="models of type 'bloom' cannot be run"):
        load(folder)
    monkeypatch.setattr(loading, "self_check", lambda *_: None)
    loaded = load(folder)
    assert loaded.identity.max_context_tokens == UNLIMITED_CONTEXT_TOKENS
    assert loaded.identity.attention == "eager"


def test_nothing_is_written_to_stderr(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(llama)
    assert capfd.readouterr() == ("", "")


_OFFLINE_AND_LIGHT = """
import json, pathlib, socket, sys

def refuse(*_, **__):
    raise AssertionError("a socket was opened")

socket.socket.connect = refuse
socket.getaddrinfo = refuse
sys.modules["accelerate"] = None
sys.modules["bitsandbytes"] = None

from cert.backends.folder import inspect_folder
assert "torch" not in sys.modules
from cert.backends.loading import load_model
assert "transformers" not in sys.modules
loaded = load_model(inspect_folder(pathlib.Path(sys.argv[1])), name="tiny")
assert not [name for name in sys.modules if name.startswith("kernels")]
print(json.dumps(loaded.tokenization.encode_prompt("Hello")))
"""


def test_loading_opens_no_socket_and_needs_no_accelerate(llama: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE_AND_LIGHT, str(llama)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "0"},
    )
    assert done.stderr == ""
    assert json.loads(done.stdout)[0] == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_there(llama: Path) -> None:
    loaded = load(llama, device="cuda")
    assert loaded.identity.device == "cuda:0"
    assert loaded.model.device.type == "cuda"
    assert loaded.identity.attention == "cert-sdpa"
