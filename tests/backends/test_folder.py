"""Finding a model by its name, and listing a folder that is as it should be."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from model_factory import FAMILIES, build_tiny_model

from cert.backends.folder import REFERENCE_FOLDER, inspect_folder, resolve_model
from cert.backends.manifest import hash_files, manifest_digest
from cert.core.errors import ConfigurationError, ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in an empty folder with a Hugging Face cache of its own."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return cache


def add_to_cache(cache: Path, name: str, folder: Path) -> Path:
    """Store a folder as huggingface_hub does: blobs, and a snapshot of links to them."""
    home = cache / f"models--{name.replace('/', '--')}"
    snapshot = home / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a" * 40)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = home / "blobs" / f"{number:040d}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def test_reference_is_the_embedded_folder_even_beside_a_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "work" / "reference").mkdir()
    assert resolve_model("reference", aliases={}) == REFERENCE_FOLDER
    assert REFERENCE_FOLDER.parts[-3:] == ("cert", "reference", "model")


@pytest.mark.parametrize("spec", ["org/name", "hf:org/name"])
def test_an_alias_comes_before_a_folder_and_the_cache(spec: str, tmp_path: Path) -> None:
    (tmp_path / "work" / "org" / "name").mkdir(parents=True)
    target = tmp_path / "elsewhere"
    target.mkdir()
    assert resolve_model(spec, aliases={"org/name": str(target)}) == target


def test_an_alias_may_mean_the_reference_model() -> None:
    assert resolve_model("gpt2", aliases={"gpt2": "reference"}) == REFERENCE_FOLDER


@pytest.mark.parametrize("alias", ["missing", "", "x" * 300, "~nobody-of-this-name/model"])
def test_an_alias_to_no_folder_says_which(alias: str) -> None:
    with pytest.raises(ModelUnavailableError, match=r"model_aliases maps 'a/b'") as caught:
        resolve_model("a/b", aliases={"a/b": alias})
    assert caught.value.hint is not None


def test_an_alias_to_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelUnavailableError, match="which is no folder"):
        resolve_model("a/b", aliases={"a/b": str(tmp_path / "file")})


def test_a_folder_is_found_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "work" / "openai:model").mkdir()
    (tmp_path / "work" / "mine").mkdir()
    assert resolve_model("mine", aliases={}) == tmp_path / "work" / "mine"
    assert resolve_model(str(tmp_path / "work"), aliases={}) == tmp_path / "work"
    assert resolve_model("openai:model", aliases={}) == tmp_path / "work" / "openai:model"


@pytest.mark.parametrize("spec", ["openai:gpt@http://127.0.0.1", "vllm:x", "https://x/y", ""])
def test_other_schemes_say_which_exist(spec: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_model(spec, aliases={})
    assert caught.value.hint is not None
    assert "`reference`, hf:ORG/NAME" in caught.value.hint


@pytest.mark.parametrize("spec", ["/no/such/folder", "a/b/c", "../up", "hf:", "hf:../x", "a\0b"])
def test_what_can_be_no_name_is_no_folder(spec: str) -> None:
    with pytest.raises(ModelUnavailableError, match="there is no folder"):
        resolve_model(spec, aliases={})


def test_a_name_that_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(ModelUnavailableError, match="'org/name' is not on this machine") as caught:
        resolve_model("org/name", aliases={})
    assert caught.value.hint is not None
    assert "model_aliases: {org/name: /path/to/folder}" in caught.value.hint
    assert "--allow-download" in caught.value.hint


@pytest.mark.parametrize(("spec", "name"), [("hf:org/tiny", "org/tiny"), ("gpt2", "gpt2")])
def test_a_snapshot_in_the_cache_is_found_and_its_links_are_followed(
    spec: str, name: str, environment: Path, tmp_path: Path
) -> None:
    folder = build_tiny_model(tmp_path / "model", "gpt2")
    snapshot = add_to_cache(environment, name, folder)
    assert resolve_model(spec, aliases={}) == snapshot
    assert inspect_folder(snapshot).architecture == "GPT2LMHeadModel"


def test_without_huggingface_hub_a_name_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ModelUnavailableError, match="not on this machine"):
        resolve_model("org/name", aliases={})


def test_a_download_is_not_tried_where_the_process_is_offline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailableError, match="HF_HUB_OFFLINE is set"):
        resolve_model("org/name", aliases={}, allow_download=True)


@pytest.mark.parametrize(
    ("error", "message"),
    [("LocalEntryNotFoundError", "not on this machine"), ("OSError", "could not be fetched")],
)
def test_a_failed_download_is_told(
    error: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    asked: list[dict[str, object]] = []

    def download(name: str, **options: object) -> str:
        asked.append({"name": name, **options})
        raise getattr(errors, error, OSError)("no network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ModelUnavailableError, match=message):
        resolve_model("org/name", aliases={}, allow_download=True)
    assert asked[0]["local_files_only"] is False
    patterns = asked[0]["allow_patterns"]
    assert isinstance(patterns, list)
    assert "*.bin" not in patterns
    assert "*.safetensors" in patterns


def test_the_process_is_offline_unless_downloads_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    resolve_model("reference", aliases={}, allow_download=True)
    assert "HF_HUB_OFFLINE" not in os.environ
    resolve_model("reference", aliases={})
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_good_folder_is_listed(family: str, tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", family)
    found = inspect_folder(folder)
    assert found.model_type == family
    assert found.model_files == ("config.json", "model.safetensors", "generation_config.json")
    assert found.tokenizer_files == ("tokenizer.json", "tokenizer_config.json")
    assert found.ignored == ()
    elements = sum(tensor.elements for tensor in found.weights["model.safetensors"])
    assert elements * 4 < (folder / "model.safetensors").stat().st_size


def test_shards_and_their_index_are_listed(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama", shard_size="20KB")
    found = inspect_folder(folder)
    assert len(found.weights) > 1
    assert "model.safetensors.index.json" in found.model_files
    assert set(found.weights) < set(found.model_files)


def test_a_single_file_comes_before_an_index_as_in_transformers(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama", shard_size="20KB")
    build_tiny_model(tmp_path / "single", "llama")
    shutil.copy(tmp_path / "single" / "model.safetensors", folder)
    found = inspect_folder(folder)
    assert list(found.weights) == ["model.safetensors"]
    assert "model.safetensors.index.json" in found.ignored


def test_a_vocabulary_without_tokenizer_json_is_listed(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "gpt2")
    (folder / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text("{}")
    assert inspect_folder(folder).tokenizer_files == (
        "merges.txt",
        "tokenizer_config.json",
        "vocab.json",
    )


def test_named_templates_are_listed(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "gpt2")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").touch()
    assert "additional_chat_templates/tool_use.jinja" in inspect_folder(folder).tokenizer_files


def test_the_digest_depends_on_names_and_bytes_and_not_on_the_place(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a").write_bytes(b"abc")
        (tmp_path / place / "b").write_bytes(b"")
    manifest = hash_files(tmp_path / "one", ["b", "a"])
    assert list(manifest) == ["a", "b"]
    assert manifest["a"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    digest = manifest_digest(manifest)
    assert digest == manifest_digest(hash_files(tmp_path / "two", ["a", "b"]))
    (tmp_path / "two" / "a").write_bytes(b"abd")
    assert digest != manifest_digest(hash_files(tmp_path / "two", ["a", "b"]))
    assert digest != manifest_digest({"a": manifest["a"], "c": manifest["b"]})


def test_a_file_that_went_away_cannot_be_hashed(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="No such file"):
        hash_files(tmp_path, ["gone"])


def test_configurations_are_kept(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama")
    found = inspect_folder(folder)
    assert found.config == json.loads((folder / "config.json").read_text())
    assert found.generation_config["eos_token_id"] == 1
