"""From a folder's tokenizer files to a `tokenizers.Tokenizer`, just as transformers makes it.

transformers' AutoTokenizer is what token ids are held to. It is slow to import and to run, and for
most folders it does no more than read tokenizer.json: those are read directly. Every other folder
goes through AutoTokenizer itself, so that the ids agree either way.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from cert.backends.folder import MAX_CONFIG_BYTES, MAX_TEMPLATE_BYTES, MAX_TOKENIZER_BYTES
from cert.backends.model_files import one_line, read_json_object, read_text
from cert.backends.quiet import quiet_transformers
from cert.backends.tokenizer_match import SPECIAL_NAMES, find_class, reads_as_it_is
from cert.core.errors import ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cert.backends.folder import ModelFolder

_TOKENIZER = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_SPECIALS = "special_tokens_map.json"
_ADDED = "added_tokens.json"
_TEMPLATE = "chat_template.jinja"
_DEFAULT_TEMPLATE = "default"


@dataclass(frozen=True, slots=True)
class TokenizerParts:
    """What the files say.

    Attributes:
        tokenizer: Without truncation and padding.
        special_tokens: Text by role, for example `bos_token`.
        chat_template: None where there is none; of several the one called `default`.
        through_transformers: Whether AutoTokenizer made it.
    """

    tokenizer: Tokenizer
    special_tokens: Mapping[str, str]
    chat_template: str | None
    through_transformers: bool


def read_tokenizer(folder: ModelFolder) -> TokenizerParts:
    """Read a folder's tokenizer.

    Raises:
        ModelUnavailableError: The files make no tokenizer, or one that needs software which is
            not installed.
        ModelRefusedError: A file is too large, or not safe to read.
    """
    settings = _settings(folder)
    direct = _read_directly(folder, settings)
    tokenizer, special_tokens = direct or _read_with_transformers(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TokenizerParts(
        tokenizer, special_tokens, _chat_template(folder, settings), direct is None
    )


def _settings(folder: ModelFolder) -> dict[str, object]:
    """tokenizer_config.json, with special_tokens_map.json where transformers still heeds it."""
    settings: dict[str, object] = {}
    if _SETTINGS in folder.tokenizer_files:
        settings = read_json_object(folder.path / _SETTINGS, max_bytes=MAX_CONFIG_BYTES)
    if _SPECIALS in folder.tokenizer_files and "added_tokens_decoder" not in settings:
        settings |= read_json_object(folder.path / _SPECIALS, max_bytes=MAX_CONFIG_BYTES)
    return settings


def _read_directly(
    folder: ModelFolder, settings: Mapping[str, object]
) -> tuple[Tokenizer, dict[str, str]] | None:
    if _TOKENIZER not in folder.tokenizer_files or "tekken.json" in folder.ignored:
        return None
    if _ADDED in folder.tokenizer_files and "added_tokens_decoder" not in settings:
        return None
    path = folder.path / _TOKENIZER
    text = read_text(path, max_bytes=MAX_TOKENIZER_BYTES)
    try:
        with panics_as_errors():
            tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare exceptions
        message = f"{path} makes no tokenizer: {one_line(error)}"
        raise ModelUnavailableError(message) from error
    name = settings.get("tokenizer_class") or folder.config.get("tokenizer_class")
    found = find_class(folder.model_type, name if isinstance(name, str) else None, tokenizer)
    if found is None:
        return None
    special_tokens = _special_tokens(found.defaults, settings)
    if not reads_as_it_is(found, settings, tokenizer, special_tokens):
        return None
    return tokenizer, special_tokens


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turn a panic of the tokenizers library into an exception that belongs to the text at hand.

    A pattern that backtracks too long panics, and a panic is no `Exception`: it would end the
    thread it happens in.

    Raises:
        RuntimeError: In place of the panic.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(one_line(error)) from None


def _special_tokens(defaults: Mapping[str, str], settings: Mapping[str, object]) -> dict[str, str]:
    tokens: dict[str, str] = {}
    for name in SPECIAL_NAMES:
        value = settings.get(name) if name in settings else defaults.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            tokens[name] = content
    return tokens


def _read_with_transformers(folder: ModelFolder) -> tuple[Tokenizer, dict[str, str]]:
    from transformers import AutoTokenizer  # noqa: PLC0415 - seconds, and seldom needed

    try:
        with quiet_transformers(), panics_as_errors():
            found = AutoTokenizer.from_pretrained(
                str(folder.path), local_files_only=True, trust_remote_code=False
            )
        backend = found.backend_tokenizer
        special_tokens = dict(found.special_tokens_map)
    except Exception as error:  # transformers raises whatever its many readers raise
        message = f"transformers makes no tokenizer of {folder.path}: {one_line(error)}"
        raise ModelUnavailableError(
            message, hint="save the tokenizer as tokenizer.json (its `fast` form)"
        ) from error
    return backend, special_tokens


def _chat_template(folder: ModelFolder, settings: Mapping[str, object]) -> str | None:
    """A file of its own comes before tokenizer_config.json; of named templates, the default."""
    if _TEMPLATE in folder.tokenizer_files:
        return read_text(folder.path / _TEMPLATE, max_bytes=MAX_TEMPLATE_BYTES)
    template = settings.get("chat_template")
    if any(name.startswith("additional_chat_templates/") for name in folder.tokenizer_files):
        return None
    if isinstance(template, list):
        named = {
            item.get("name"): item.get("template") for item in template if isinstance(item, dict)
        }
        template = named.get(_DEFAULT_TEMPLATE)
    if isinstance(template, dict):
        template = template.get(_DEFAULT_TEMPLATE)
    return template if isinstance(template, str) else None
