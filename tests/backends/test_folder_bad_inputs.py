"""The list "Models" of bad inputs: each is refused with a clear error, fast, and none is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import time
from typing import TYPE_CHECKING

import pytest
from model_factory import build_tiny_model

from cert.backends import folder as folder_module
from cert.backends.folder import inspect_folder
from cert.core.errors import ModelRefusedError, ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("good") / "model", "llama")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "model")


@pytest.fixture(autouse=True)
def _within_seconds() -> Iterator[None]:
    start = time.process_time()  # whatever else the machine does
    yield
    assert time.process_time() - start < 10


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def edit(path: Path, **values: object) -> None:
    document = json.loads(path.read_text())
    document.update(values)
    path.write_text(json.dumps(document))


def weights(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# --- the folder


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="No such file"):
        inspect_folder(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder(folder: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="is a file; a model is a folder"):
        inspect_folder(folder / "config.json")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"has no config\.json"):
        inspect_folder(tmp_path)


def test_a_folder_of_too_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "MAX_FOLDER_ENTRIES", 4)
    with pytest.raises(ModelRefusedError, match="more than 4 files"):
        inspect_folder(folder)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(folder: Path) -> None:
    (folder / "config.json").chmod(0)
    with pytest.raises(ModelUnavailableError, match="Permission denied"):
        inspect_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_does_not_hang(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelRefusedError, match="is not a regular file"):
        inspect_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_in_place_of_a_file(name: str, folder: Path) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(ModelRefusedError, match="is not a regular file"):
        inspect_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_git_lfs_pointer(name: str, folder: Path) -> None:
    (folder / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 17\n"
    )
    with pytest.raises(ModelUnavailableError, match=f"{name} is a Git LFS pointer") as caught:
        inspect_folder(folder)
    assert caught.value.hint is not None
    assert "git lfs pull" in caught.value.hint


def test_an_extra_file_is_ignored_and_named(folder: Path) -> None:
    for name in ("notes.md", "model2.safetensors", "pytorch_model.bin"):
        (folder / name).write_bytes(b"anything")
    assert inspect_folder(folder).ignored == (
        "model2.safetensors",
        "notes.md",
        "pytorch_model.bin",
    )


# --- code


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.pth", "weights.pkl", "m.PICKLE", "m.ckpt"]
)
def test_only_pickled_weights(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(ModelRefusedError, match=f"{name}' is refused") as caught:
        inspect_folder(folder)
    assert caught.value.hint is not None
    assert "convert them to safetensors" in caught.value.hint
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.gguf", "tf_model.h5", "flax_model.msgpack"])
def test_only_weights_of_other_formats(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).touch()
    with pytest.raises(ModelRefusedError, match=f"{name}' is refused"):
        inspect_folder(folder)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_renamed_pickle(protocol: int, folder: Path, tmp_path: Path) -> None:
    data = pickle.dumps(Bomb(tmp_path / "ran"), protocol)
    (folder / "model.safetensors").write_bytes(data + bytes(100))
    with pytest.raises(ModelRefusedError, match="is a pickle, not a safetensors file"):
        inspect_folder(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("start", "what"), [(b"PK\x03\x04", "ZIP"), (b"GGUF", "GGUF"), (b"\x89HDF\r\n\x1a\n", "HDF5")]
)
def test_another_format_renamed(start: bytes, what: str, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(start + bytes(100).replace(b"\0", b"\xff"))
    with pytest.raises(ModelRefusedError, match=what):
        inspect_folder(folder)


def test_a_stray_py_is_never_read(folder: Path, tmp_path: Path) -> None:
    (folder / "modeling_llama.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    os.mkfifo(folder / "tokenization_llama.py")  # opening it would hang
    assert inspect_folder(folder).ignored == ("modeling_llama.py", "tokenization_llama.py")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"auto_map": {"AutoConfig": "configuration_x.X"}}, "auto_map"),
        ({"auto_map": ["x.X", None]}, "auto_map"),
        ({"text_config": {"auto_map": {"AutoModel": "x.X"}}}, "text_config.auto_map"),
        ({"a": [{"b": {"trust_remote_code": True}}]}, r"a\[0\]\.b\.trust_remote_code"),
        ({"trust_remote_code": "yes"}, "trust_remote_code"),
        ({"use_kernels": True}, "use_kernels"),
        ({"_attn_implementation": "org/repo"}, "_attn_implementation"),
        ({"attn_implementation": "kernels-community/flash-attn"}, "attn_implementation"),
        ({"x": {"_attn_implementation_internal": {"": "a/b"}}}, "x._attn_implementation_internal"),
        ({"vision": {"attention": {"kind": ["org/repo:main"]}}}, "vision.attention"),
        ({"_experts_implementation": "org/repo"}, "_experts_implementation"),
    ],
)
def test_a_configuration_that_asks_for_code(
    file: str, values: dict[str, object], place: str, folder: Path
) -> None:
    edit(folder / file, **values)
    with pytest.raises(ModelRefusedError, match=rf"{file}: {place}"):
        inspect_folder(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"auto_map": {}, "trust_remote_code": False, "use_kernels": None},
        {"_attn_implementation": "flash_attention_2"},
        {"_name_or_path": "org/name"},
    ],
)
def test_a_configuration_that_asks_for_no_code(values: dict[str, object], folder: Path) -> None:
    edit(folder / "config.json", **values)
    assert inspect_folder(folder).architecture == "LlamaForCausalLM"


def test_an_escape_code_in_a_field_name_is_not_printed(folder: Path) -> None:
    edit(folder / "config.json", **{"\x1b]52;c;eA==\x07": {"auto_map": ["x"]}})
    with pytest.raises(ModelRefusedError) as caught:
        inspect_folder(folder)
    assert caught.value.message.isprintable()


# --- config.json


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[]", "holds no JSON object"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested deeper than 64"),
        ("[" * 100_000, "nested deeper than 64"),
        ('{"a": ' + "9" * 5_000 + "}", "is no JSON"),
        ('{"a": "' + "x" * 5_000_000 + '"}', "at most 4194304 are read"),
    ],
)
def test_a_config_that_is_none(content: str, message: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelUnavailableError, match=message):
        inspect_folder(folder)


def test_a_config_that_is_not_utf_8(folder: Path) -> None:
    (folder / "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ModelUnavailableError, match=r"not UTF-8 \(byte 7\)"):
        inspect_folder(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; at most 512"),
        ({"n_layer": 513}, "n_layer is 513"),
        ({"vocab_size": 10**9}, "vocab_size is 1000000000"),
        ({"hidden_size": 10**9}, "hidden_size is 1000000000"),
        ({"num_attention_heads": 10**6}, "num_attention_heads is 1000000"),
        ({"num_local_experts": 10**6}, "num_local_experts is 1000000"),
        ({"intermediate_size": 10**9}, "intermediate_size is 1000000000"),
        ({"max_position_embeddings": 2**31}, "max_position_embeddings is 2147483648"),
        ({"num_anything": 10**7}, "num_anything is 10000000"),
        ({"text_config": {"num_layers": 10**9}}, r"text_config\.num_layers is 1000000000"),
        ({"other": -(2**54)}, "other is -18014398509481984"),
        ({"other": 10**1000}, "other is a number of 3322 bits"),
    ],
)
def test_sizes_that_no_model_has(values: dict[str, object], message: str, folder: Path) -> None:
    edit(folder / "config.json", **values)
    with pytest.raises(ModelRefusedError, match=message):
        inspect_folder(folder)


@pytest.mark.parametrize("value", [None, 5, "", "a b", "../llama", "x" * 65])
def test_a_model_type_that_is_none(value: object, folder: Path) -> None:
    edit(folder / "config.json", model_type=value)
    with pytest.raises(ModelUnavailableError, match="model_type names no architecture"):
        inspect_folder(folder)


@pytest.mark.parametrize("value", ["LlamaForCausalLM", [5], ["os.system('x')"]])
def test_architectures_that_are_none(value: object, folder: Path) -> None:
    edit(folder / "config.json", architectures=value)
    with pytest.raises(ModelUnavailableError, match="architectures is no list of class names"):
        inspect_folder(folder)


@pytest.mark.parametrize("value", [None, []])
def test_architectures_may_be_left_out(value: object, folder: Path) -> None:
    edit(folder / "config.json", architectures=value)
    assert inspect_folder(folder).architecture is None


def test_weights_that_are_stored_quantized(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelUnavailableError, match=r"stored quantized \('gptq'\)") as caught:
        inspect_folder(folder)
    assert caught.value.hint is not None
    assert "--quantize" in caught.value.hint


# --- safetensors


def test_weights_that_are_cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for size in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelUnavailableError, match="is cut off"):
            inspect_folder(folder)


def test_weights_with_trailing_junk(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"junk")
    with pytest.raises(ModelRefusedError, match="4 bytes follow the last tensor"):
        inspect_folder(folder)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 101_000_000])
def test_a_header_longer_than_the_format_allows(length: int, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(weights(b"{}", length=length))
    with pytest.raises(ModelRefusedError, match=f"header of {length} bytes"):
        inspect_folder(folder)


@pytest.mark.parametrize("size", [101_000_000, 20_000_000])
def test_a_real_header_of_many_megabytes_is_not_parsed(size: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(weights(b"{", length=size))
    os.truncate(path, size + 8)
    with pytest.raises(ModelRefusedError, match=f"header of {size} bytes"):
        inspect_folder(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (weights(b"[]"), "does not start with a brace"),
        (weights(b' {"a": 1}'), "does not start with a brace"),
        (weights(b'{"\xff": 1}'), "the header is not UTF-8"),
        (weights(b"{" + b'"a":{' * 5_000), "nested deeper"),
        (weights({"__metadata__": {"a": 1}}), "maps no names to texts"),
        (weights({"__metadata__": []}), "maps no names to texts"),
        (weights({"a": 1}), "a has other fields than"),
        (weights({"a": {**entry([1], 0, 4), "x": 1}}, b"0123"), "a has other fields than"),
        (weights({"": entry([1], 0, 4)}, b"0123"), "'' is no name for a tensor"),
        (weights({"x" * 257: entry([1], 0, 4)}, b"0123"), "is no name for a tensor"),
        (weights({"a": entry([-1], 0, 4)}), "a has no valid shape"),
        (weights({"a": entry([True], 0, 4)}), "a has no valid shape"),
        (weights({"a": entry([1.0], 0, 4)}), "a has no valid shape"),  # type: ignore[list-item]
        (weights({"a": entry([1] * 9, 0, 4)}), "a has no valid shape"),
        (weights({"a": {**entry([1], 0, 4), "data_offsets": [0]}}), "no valid data_offsets"),
        (weights({"a": entry([1], 4, 0)}), "-4 bytes"),
        (weights({"a": entry([2], 0, 4)}, b"0123"), r"a has the shape \[2\] in F32 but 4 bytes"),
        (weights({"a": entry([2**62, 4], 0, 0)}), "but 0 bytes"),
        (weights({"a": entry([2**32, 2**32], 0, 0)}), "but 0 bytes"),
        (weights({"a": entry([2**63], 0, 4)}), "a has no valid shape"),
        (weights({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)), "b overlaps"),
        (weights({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)), "b overlaps"),
        (weights({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)), "b follows a gap"),
        (weights({"a": entry([1], 4, 8)}, bytes(8)), "a follows a gap"),
        (
            weights(b'{"a":%s,"a":%s}' % ((json.dumps(entry([1], 0, 4)).encode(),) * 2), bytes(4)),
            "'a' is given twice",
        ),
        (
            weights(b'{"a":%s,"\\u0061":%s}' % ((json.dumps(entry([1], 0, 4)).encode(),) * 2)),
            "'a' is given twice",
        ),
    ],
)
def test_a_header_that_is_not_consistent(content: bytes, message: str, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelRefusedError, match=message) as caught:
        inspect_folder(folder)
    assert len(caught.value.message) < 1_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (weights({"a": entry([4], 0, 4, "F8_E4M3")}, bytes(4)), "stored as 'F8_E4M3'"),
        (weights({"a": {**entry([4], 0, 4), "dtype": 5}}, bytes(4)), "stored as '5'"),
        (weights(b"{nonsense}"), "is no JSON"),
        (weights({"a": entry([2], 0, 8)}, bytes(4)), "is cut off: 4 bytes of 8"),
    ],
)
def test_a_header_of_weights_that_cannot_be_read(
    content: bytes, message: str, folder: Path
) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelUnavailableError, match=message):
        inspect_folder(folder)


def test_two_hundred_thousand_tensors(folder: Path) -> None:
    one = json.dumps(entry([0], 0, 0)).encode()
    header = b",".join(b'"t%d":%s' % (number, one) for number in range(200_000))
    (folder / "model.safetensors").write_bytes(weights(b"{" + header + b"}"))
    with pytest.raises(ModelRefusedError, match="holds 200000 tensors; at most 100000"):
        inspect_folder(folder)


@pytest.mark.parametrize(
    "name", ["a\x1b[31mred", "a\x07", "a\nb", "a\u202eb", "a\x9b2J", "a\ud800"]
)
def test_control_characters_in_a_tensors_name(name: str, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(weights({name: entry([1], 0, 4)}, b"0123"))
    with pytest.raises(ModelRefusedError, match="is no name for a tensor") as caught:
        inspect_folder(folder)
    assert caught.value.message.isprintable()


def test_empty_tensors_are_fine(folder: Path) -> None:
    header = {"a": entry([0, 5], 0, 0), "b": entry([], 0, 4), "c": entry([3, 0], 4, 4)}
    (folder / "model.safetensors").write_bytes(weights(header, b"0123"))
    found = inspect_folder(folder).weights["model.safetensors"]
    assert {tensor.name: tensor.elements for tensor in found} == {"a": 0, "b": 1, "c": 0}


# --- shards


@pytest.fixture
def sharded(folder: Path) -> Path:
    """Two files of one tensor each, and their index."""
    (folder / "model.safetensors").unlink()
    for name in ("a", "b"):
        content = weights({name: entry([1], 0, 4)}, b"0123")
        (folder / f"{name}.safetensors").write_bytes(content)
    index(folder, {"a": "a.safetensors", "b": "b.safetensors"})
    return folder


def index(folder: Path, weight_map: object) -> None:
    document = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(document)


def test_a_good_index(sharded: Path) -> None:
    assert list(inspect_folder(sharded).weights) == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize(
    "name",
    [
        "../other/a.safetensors",
        "/etc/passwd",
        "sub/a.safetensors",
        "..",
        "a.bin",
        ".hidden.safetensors",
        "a\x1b.safetensors",
        "x" * 300 + ".safetensors",
        "",
        5,
        None,
    ],
)
def test_an_index_that_points_elsewhere(name: object, sharded: Path) -> None:
    index(sharded, {"a": name, "b": "b.safetensors"})
    with pytest.raises(ModelRefusedError, match="is no name of a safetensors file beside it"):
        inspect_folder(sharded)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "has no weight_map"),
        ({}, "has no weight_map"),
        ({"a": "a.safetensors", "b": "c.safetensors"}, "lists c.safetensors, which is missing"),
        ({"a": "b.safetensors", "b": "a.safetensors"}, "which model.safetensors.index.json places"),
        ({"b": "b.safetensors", "a": "b.safetensors"}, "lists 'a', which no file holds"),
        (
            {"a": "a.safetensors", "b": "b.safetensors", "c": "b.safetensors"},
            "lists 'c', which no file holds",
        ),
    ],
)
def test_an_index_that_does_not_fit(weight_map: object, message: str, sharded: Path) -> None:
    index(sharded, weight_map)
    with pytest.raises(ModelUnavailableError, match=message):
        inspect_folder(sharded)


def test_an_index_of_too_many(sharded: Path) -> None:
    index(sharded, {f"t{number}": "a.safetensors" for number in range(100_001)})
    with pytest.raises(ModelRefusedError, match="lists 100001 tensors"):
        inspect_folder(sharded)
    index(sharded, {f"t{number}": f"{number}.safetensors" for number in range(2_001)})
    with pytest.raises(ModelRefusedError, match="lists 2001 files"):
        inspect_folder(sharded)


def test_one_tensor_in_two_files(sharded: Path) -> None:
    shutil.copy(sharded / "a.safetensors", sharded / "b.safetensors")
    index(sharded, {"a": "a.safetensors", "x": "b.safetensors"})
    with pytest.raises(ModelRefusedError, match="holds a, which"):
        inspect_folder(sharded)


def test_no_weights_at_all(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailableError, match="has neither"):
        inspect_folder(folder)


# --- the tokenizer


def test_a_tokenizer_of_500_megabytes(folder: Path) -> None:
    os.truncate(folder / "tokenizer.json", 500_000_000)
    with pytest.raises(ModelRefusedError, match="500000000 bytes; at most 67108864"):
        inspect_folder(folder)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tokenizer_config.json", 5_000_000),
        ("chat_template.jinja", 2_000_000),
        ("additional_chat_templates/x.jinja", 2_000_000),
    ],
)
def test_other_files_that_are_too_large(name: str, size: int, folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / name).touch()
    os.truncate(folder / name, size)
    with pytest.raises(ModelRefusedError, match=f"{name} has {size} bytes"):
        inspect_folder(folder)


def test_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailableError, match=r"has no tokenizer\.json, nor another"):
        inspect_folder(folder)
