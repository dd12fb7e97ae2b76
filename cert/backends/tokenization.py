"""Text to token ids and back, as the model was trained on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cert.backends.chat_template import ChatTemplate
from cert.backends.manifest import manifest_digest
from cert.backends.tokenizer_files import panics_as_errors, read_tokenizer
from cert.core.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tokenizers import Tokenizer

    from cert.backends.folder import ModelFolder

CHAT_MODES = ("auto", "always", "never")


class Tokenization:
    """A model's tokenizer, chat template and end-of-text ids. Safe to use from several threads.

    Attributes:
        eos_token_ids: Ids that end a text, from config.json, generation_config.json and the
            tokenizer together; only ids that the model can write.
        files: SHA-256 by name of the files it was made of.
        digest: Of `files`; see `manifest`.
        through_transformers: Whether transformers' AutoTokenizer made it.
    """

    def __init__(  # noqa: PLR0913 - the parts of a tokenizer
        self,
        tokenizer: Tokenizer,
        *,
        template: ChatTemplate | None,
        eos_token_ids: Iterable[int],
        vocab_size: int,
        files: Mapping[str, str],
        through_transformers: bool = False,
    ) -> None:
        """Put the parts together; `load_tokenization` reads them from a folder."""
        self._tokenizer = tokenizer
        self._template = template
        self._vocab_size = vocab_size
        self.eos_token_ids = frozenset(eos_token_ids)
        self.files = dict(files)
        self.digest = manifest_digest(self.files)
        self.through_transformers = through_transformers

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer comes with a template that `chat="auto"` applies."""
        return self._template is not None

    def encode_prompt(self, prompt: str, *, chat: str = "auto") -> list[int]:
        """Encode a prompt as it is fed to the model.

        Without a template: the tokenizer's own special tokens are added (a beginning-of-text
        token, where it has one), as transformers' `tokenizer(prompt)` does. With a template: the
        prompt becomes the only message of a user, and what the template writes is encoded without
        further special tokens, as `apply_chat_template(..., add_generation_prompt=True)` does.

        As in transformers, text that spells a special token (`<|endoftext|>`) becomes that token;
        the ids are part of the record, so it can be seen that it did.

        Args:
            prompt: The user's text.
            chat: `auto` applies the template where there is one, `always`, `never`.

        Raises:
            InvalidInput: The text cannot be encoded, or not with tokens that the model has.
            ConfigurationError: `always`, and there is no template; or another word.
            ModelRefusedError: The template is not usable.
        """
        if chat not in CHAT_MODES:
            message = f"chat is {chat!r}; it can be {', '.join(CHAT_MODES)}"
            raise ConfigurationError(message)
        if self._template is None and chat == "always":
            raise ConfigurationError(
                "the model has no chat template", hint="use --chat auto or --chat never"
            )
        if self._template is None or chat == "never":
            return self._encode(prompt, add_special_tokens=True)
        return self._encode(self._template.render(prompt), add_special_tokens=False)

    def encode_response(self, response: str) -> list[int]:
        """Encode a given response, on its own and without added special tokens.

        Its ids are appended to the prompt's. A tokenizer may split the joined text otherwise at
        the border; a model that generates after the prompt's ids sees them as they are here, too.

        Raises:
            InvalidInput: See `encode_prompt`.
        """
        return self._encode(response, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into text: special tokens left out, nothing cleaned up.

        Bytes that are not UTF-8 become U+FFFD.
        """
        with panics_as_errors():
            return self._tokenizer.decode(ids, skip_special_tokens=True)

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        try:
            with panics_as_errors():
                ids = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        except (TypeError, UnicodeEncodeError) as error:
            raise InvalidInput("the text is not valid Unicode and cannot be encoded") from error
        except RuntimeError as error:
            message = f"the model's tokenizer gave up on the text: {error}"
            raise InvalidInput(message) from error
        if ids and max(ids) >= self._vocab_size:
            token = self._tokenizer.id_to_token(max(ids))
            message = f"the text holds {token!r}, a token that the model has no embedding for"
            raise InvalidInput(message)
        return ids


def load_tokenization(
    folder: ModelFolder, *, vocab_size: int, files: Mapping[str, str]
) -> Tokenization:
    """Read a folder's tokenizer.

    Args:
        folder: Checked.
        vocab_size: The model's V.
        files: SHA-256 of the tokenizer's files by name.

    Raises:
        ModelUnavailableError, ModelRefusedError: See `read_tokenizer`.
    """
    parts = read_tokenizer(folder)
    end = parts.special_tokens.get("eos_token")
    ids = [
        *_ids(folder.config.get("eos_token_id")),
        *_ids(folder.generation_config.get("eos_token_id")),
        *_ids(parts.tokenizer.token_to_id(end) if end is not None else None),
    ]
    template = None
    if parts.chat_template is not None:
        template = ChatTemplate(parts.chat_template, parts.special_tokens)
    return Tokenization(
        parts.tokenizer,
        template=template,
        eos_token_ids=[token for token in ids if 0 <= token < vocab_size],
        vocab_size=vocab_size,
        files=files,
        through_transformers=parts.through_transformers,
    )


def _ids(value: object) -> list[int]:
    """One id or several, as configurations write them."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if type(item) is int]
