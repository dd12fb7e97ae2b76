"""Model folders in transformers' format: found, listed, and checked before anything is loaded.

What is read and what is not: `.safetensors`, `.json`, `.txt`, `.model` and `.jinja` files, by the
names transformers gives them. Other files are never opened. A folder whose only weights are in a
pickled format (`.bin`, `.pt`, `.pth`, `.pkl`, `.ckpt`) is refused with that file's name; beside
safetensors such files do no harm and are listed as ignored, as is code (`.py`) that no
configuration asks for. A configuration that does ask for code is refused.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cert.backends.config_rules import check_config, check_document
from cert.backends.model_files import open_regular, read_json_object
from cert.backends.weight_files import INDEX_FILE, WEIGHTS_FILE, list_weights
from cert.core.errors import ConfigurationError, ModelRefusedError, ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cert.backends.safetensors_header import TensorEntry

REFERENCE_NAME = "reference"
REFERENCE_FOLDER = Path(__file__).resolve().parents[1] / "reference" / "model"

_HUB_SCHEME = "hf:"
_OTHER_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"

MAX_CONFIG_BYTES = 4 * 2**20
MAX_TOKENIZER_BYTES = 64 * 2**20
MAX_TEMPLATE_BYTES = 2**20
MAX_FOLDER_ENTRIES = 10_000

_TEMPLATE_FOLDER = "additional_chat_templates"
_TOKENIZER_FILE = "tokenizer.json"
_TOKENIZER_SETTINGS = {
    _TOKENIZER_FILE: MAX_TOKENIZER_BYTES,
    "tokenizer_config.json": MAX_CONFIG_BYTES,
    "special_tokens_map.json": MAX_CONFIG_BYTES,
    "added_tokens.json": MAX_CONFIG_BYTES,
    "chat_template.jinja": MAX_TEMPLATE_BYTES,
}
_VOCABULARIES = {
    "vocab.json": MAX_TOKENIZER_BYTES,
    "merges.txt": MAX_TOKENIZER_BYTES,
    "vocab.txt": MAX_TOKENIZER_BYTES,
    "tokenizer.model": MAX_TOKENIZER_BYTES,
    "spiece.model": MAX_TOKENIZER_BYTES,
    "tekken.json": MAX_TOKENIZER_BYTES,
}


def resolve_model(spec: str, *, aliases: Mapping[str, str], allow_download: bool = False) -> Path:
    """Find the folder of a model: the first of these that fits.

    1. `reference` is the embedded reference model.
    2. A name that `aliases` knows (with or without `hf:` before it) is the folder it gives.
    3. A folder that exists (not for `hf:...`).
    4. `hf:ORG/NAME`, `ORG/NAME` or `NAME`: the newest snapshot in the local Hugging Face cache
       (HF_HOME); with `allow_download`, fetched into it where it is not there yet.

    Without `allow_download`, HF_HUB_OFFLINE is set for the whole process, so that no library
    used later asks the hub either.

    Args:
        spec: As given to `--model`.
        aliases: Local folder by name.
        allow_download: Whether the hub may be asked.

    Raises:
        ModelUnavailableError: There is no such model here.
        ConfigurationError: The name is of no form that this version knows.
    """
    if not allow_download:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if spec == REFERENCE_NAME:
        return REFERENCE_FOLDER
    name = spec.removeprefix(_HUB_SCHEME)
    alias = aliases.get(spec, aliases.get(name))
    if alias is not None:
        return _aliased(name, alias)
    if name == spec:
        folder = _existing(spec)
        if folder is not None:
            return folder
        _check_scheme(spec)
    if not _HUB_NAME.fullmatch(name) or ".." in name:
        message = f"there is no folder {spec!r}"
        raise ModelUnavailableError(message, hint="give a folder, ORG/NAME, or `reference`")
    return _from_hub_cache(name, allow_download=allow_download)


def _aliased(name: str, alias: str) -> Path:
    if alias == REFERENCE_NAME:
        return REFERENCE_FOLDER
    folder = _existing(alias)
    if folder is None or not folder.is_dir():
        message = f"model_aliases maps {name!r} to {alias!r}, which is no folder"
        raise ModelUnavailableError(message, hint="correct model_aliases in cert.yaml")
    return folder


def _existing(text: str) -> Path | None:
    """The path, where something is there that may be looked at."""
    if not text:
        return None
    try:
        path = Path(text).expanduser().absolute()
        return path if path.exists() else None
    except (OSError, RuntimeError):
        return None


def _check_scheme(spec: str) -> None:
    scheme = _OTHER_SCHEME.match(spec)
    if not spec or scheme is not None:
        what = f"model names that start with {scheme.group()!r} do not exist" if scheme else "empty"
        message = f"--model: {what}"
        raise ConfigurationError(
            message, hint="this version knows `reference`, hf:ORG/NAME, ORG/NAME and folders"
        )


def _from_hub_cache(name: str, *, allow_download: bool) -> Path:
    try:
        import huggingface_hub  # noqa: PLC0415 - half a second that only hub names need
        from huggingface_hub import errors  # noqa: PLC0415
    except ImportError:
        raise _not_here(name, allow_download=False) from None
    if allow_download and huggingface_hub.constants.HF_HUB_OFFLINE:
        message = f"{name} may not be fetched: HF_HUB_OFFLINE is set for this process"
        raise ModelUnavailableError(message, hint="start again without HF_HUB_OFFLINE")
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, local_files_only=not allow_download, allow_patterns=_HUB_FILES
            )
        )
    except errors.LocalEntryNotFoundError as error:
        raise _not_here(name, allow_download=allow_download) from error
    except (errors.HfHubHTTPError, OSError) as error:
        message = f"{name} could not be fetched: {type(error).__name__}"
        raise ModelUnavailableError(message) from error


def _not_here(name: str, *, allow_download: bool) -> ModelUnavailableError:
    message = f"the model {name!r} is not on this machine"
    hint = f'name its folder in cert.yaml, "model_aliases: {{{name}: /path/to/folder}}"'
    if not allow_download:
        hint += ", or allow the download with --allow-download"
    return ModelUnavailableError(message, hint=hint)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that passed the checks; nothing of it has been loaded.

    Attributes:
        path: Absolute.
        config: config.json.
        generation_config: generation_config.json, empty where there is none.
        model_type: For example `llama`.
        architecture: For example `LlamaForCausalLM`; None where the configuration names none.
        weights: Tensors by weights file, in the order of loading.
        model_files: Names of the configuration and weights files.
        tokenizer_files: Names relative to the folder, `/` between.
        ignored: Names of files that are never opened.
    """

    path: Path
    config: Mapping[str, object]
    generation_config: Mapping[str, object]
    model_type: str
    architecture: str | None
    weights: Mapping[str, tuple[TensorEntry, ...]]
    model_files: tuple[str, ...]
    tokenizer_files: tuple[str, ...]
    ignored: tuple[str, ...]


def inspect_folder(path: Path) -> ModelFolder:
    """Check a model folder: configurations, limits, headers of the weights.

    Reads configurations and headers only; no weights, and no code ever.

    Raises:
        ModelUnavailableError: The folder or a file is missing, cut off, or in a format that is
            not supported.
        ModelRefusedError: A file asks for what is not safe, or is not what it says it is.
    """
    path = path.absolute()
    names = _list(path)
    if CONFIG_FILE not in names:
        message = f"{path} has no {CONFIG_FILE}: it is no model folder in transformers' format"
        raise ModelUnavailableError(message)
    config = read_json_object(path / CONFIG_FILE, max_bytes=MAX_CONFIG_BYTES)
    check_config(config, str(path / CONFIG_FILE))
    generation_config: dict[str, object] = {}
    if GENERATION_FILE in names:
        generation_config = read_json_object(path / GENERATION_FILE, max_bytes=MAX_CONFIG_BYTES)
        check_document(generation_config, str(path / GENERATION_FILE))
    weights = list_weights(path, names)
    tokenizer_files = _tokenizer_files(path, names)
    model_files = [CONFIG_FILE, *weights]
    if GENERATION_FILE in names:
        model_files.append(GENERATION_FILE)
    if WEIGHTS_FILE not in weights:
        model_files.append(INDEX_FILE)
    return ModelFolder(
        path=path,
        config=config,
        generation_config=generation_config,
        model_type=_model_type(config, path),
        architecture=_architecture(config, path),
        weights=weights,
        model_files=tuple(model_files),
        tokenizer_files=tokenizer_files,
        ignored=tuple(sorted(names.difference(model_files, tokenizer_files))),
    )


def _list(path: Path) -> frozenset[str]:
    try:
        names = frozenset(
            entry.name for entry in itertools.islice(path.iterdir(), MAX_FOLDER_ENTRIES + 1)
        )
    except NotADirectoryError as error:
        message = f"{path} is a file; a model is a folder with {CONFIG_FILE} in it"
        raise ModelUnavailableError(message) from error
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise ModelUnavailableError(message) from error
    if len(names) > MAX_FOLDER_ENTRIES:
        message = f"{path} has more than {MAX_FOLDER_ENTRIES} files: it is no model folder"
        raise ModelRefusedError(message)
    return names


def _model_type(config: Mapping[str, object], path: Path) -> str:
    value = config.get("model_type")
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        message = f"{path / CONFIG_FILE}: model_type names no architecture"
        raise ModelUnavailableError(message)
    return value


def _architecture(config: Mapping[str, object], path: Path) -> str | None:
    value = config.get("architectures")
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not isinstance(value[0], str) or not value[0].isidentifier():
        message = f"{path / CONFIG_FILE}: architectures is no list of class names"
        raise ModelUnavailableError(message)
    return value[0]


def _tokenizer_files(path: Path, names: frozenset[str]) -> tuple[str, ...]:
    limits = dict(_TOKENIZER_SETTINGS)
    if _TOKENIZER_FILE not in names:
        limits |= _VOCABULARIES
    found = [name for name in limits if name in names]
    if not set(found) & {_TOKENIZER_FILE, *_VOCABULARIES}:
        message = f"{path} has no {_TOKENIZER_FILE}, nor another vocabulary"
        raise ModelUnavailableError(message)
    if _TEMPLATE_FOLDER in names:
        for template in sorted((path / _TEMPLATE_FOLDER).glob("*.jinja")):
            name = f"{_TEMPLATE_FOLDER}/{template.name}"
            limits[name] = MAX_TEMPLATE_BYTES
            found.append(name)
    for name in found:
        open_regular(path / name, max_bytes=limits[name]).close()
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if name in found:
            document = read_json_object(path / name, max_bytes=limits[name])
            check_document(document, str(path / name))
    return tuple(sorted(found))
