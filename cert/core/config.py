"""Settings: every one of them, its value, and where it came from.

The nearest source wins, for each setting as a whole (lists and maps are not merged):

    flag > environment > --config FILE, else ./cert.yaml or [tool.cert] of ./pyproject.toml
         > the user's own cert.yaml > default

Environment variables have the specification's names (`DEVICE`, `LOG_LEVEL`, ...) where it has one,
and `CERT_` with the setting's name otherwise. Lists and maps are written as JSON there. An empty
variable counts as absent, as containers' files of variables leave them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cert.core.config_sources import (
    DEFAULT,
    FLAG,
    Layer,
    environment_layer,
    file_layer,
    invalid_value,
    project_layer,
    unknown_key,
    user_layer,
)
from cert.core.errors import ConfigurationError
from cert.observability.controls import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import TextIO


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is expected, not a truth value")  # noqa: TRY004 - pydantic's way
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


_Int = Annotated[int, BeforeValidator(_no_bool)]
_Float = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]


class CERTConfig(BaseSettings):
    """All settings of the library and of the program; immutable.

    `from_env` reads the environment, `load` reads everything. The constructor alone takes what it
    is given and the defaults, and looks nowhere else; its errors are pydantic's own.
    """

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True
    )

    model: str = Field("reference", min_length=1, description="Model to measure with.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where it runs.")
    quantize: Literal["none", "8bit", "4bit"] = Field("none", description="Weights in fewer bits.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Precision of the weights."
    )
    policy: str | None = Field(
        None, min_length=1, description="Id or file of the policy; none is the model's default."
    )
    max_new_tokens: _Int = Field(64, ge=1, description="Tokens to generate at most.")
    temperature: _Float = Field(0.0, ge=0, description="0 is greedy.")
    top_k: _Int = Field(0, ge=0, description="Sample among the k most probable; 0 is all.")
    top_p: _Float = Field(1.0, gt=0, le=1, description="Sample within this probability mass.")
    seed: _Int | None = Field(
        None, ge=0, lt=2**53, description="Keys sampling; none draws one and records it."
    )
    timeout: _Float | None = Field(None, gt=0, description="Seconds a prompt; none is no limit.")
    chat: Literal["auto", "always", "never"] = Field("auto", description="Chat template.")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Texts that end a generation."
    )
    batch_rows: _Int = Field(16, ge=1, description="Prompts that run at the same time.")
    cache_size: _Int = Field(1000, ge=0, description="Results kept in memory; 0 keeps none.")
    max_prompt_chars: _Int = Field(100_000, ge=1, description="Longer prompts are refused.")
    offline: bool = Field(True, description="No network; false allows a model's download.")  # noqa: FBT003 - the default
    model_aliases: dict[str, str] = Field(
        default_factory=dict, description="Local folder by the model's name on a hub."
    )
    content: Literal["full", "committed", "omitted"] = Field(
        "full", description="Whether records hold the texts, commit to them, or leave them out."
    )
    ledger: str = Field(
        "auto",
        min_length=1,
        description="Folder of the ledger; auto is the user's own, none is no ledger.",
    )
    on_ledger_failure: Literal["halt", "warn"] = Field(
        "halt", description="What a ledger that cannot be written makes of a run."
    )
    keys: str | None = Field(
        None, min_length=1, description="Folder of the signing keys; none is the user's own."
    )
    signing_key: str | None = Field(
        None, min_length=1, description="One signing key: a PEM file, or its text."
    )
    verify_key: str | None = Field(
        None, min_length=1, description="Public key that `verify` trusts: a file, or its text."
    )
    retention_days: _Int = Field(
        3653, ge=183, description="Records younger than this are not pruned."
    )
    timestamp_url: str | None = Field(
        None, min_length=1, description="RFC 3161 authority for checkpoints; none asks nobody."
    )
    preload: bool = Field(False, description="Load the model at start.")  # noqa: FBT003 - the default
    max_memory_gb: _Float | None = Field(
        None, gt=0, description="Limit of the process in GB of 2**30 bytes; none is the machine's."
    )
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)
    ] = Field("INFO", description="Least severe log line.")
    log_format: Annotated[Literal["json", "human"], BeforeValidator(_lower)] = Field(
        "json", description="One JSON object a line, or text."
    )
    log_output: Annotated[Literal["stdout", "file", "both"], BeforeValidator(_lower)] = Field(
        "stdout", description="Where log lines go; the program's are on stderr, not stdout."
    )
    log_file: str | None = Field(None, min_length=1, description="Where `file` and `both` write.")
    log_max_bytes: _Int = Field(
        10 * 2**20, ge=0, description="The log file is rotated before it is larger; 0 never."
    )
    log_backups: _Int = Field(5, ge=0, description="Rotated log files that are kept.")
    traces: Literal["none", "otlp"] = Field(
        "none", description="OpenTelemetry traces, sent where the OTEL_* variables say."
    )
    metrics_enabled: bool = Field(False, description="Serve Prometheus metrics.")  # noqa: FBT003 - the default
    metrics_host: str = Field(
        "127.0.0.1", min_length=1, description="Address of the metrics; not loopback needs a token."
    )
    metrics_port: _Int = Field(9090, ge=0, le=65535, description="Port of the metrics; 0 is any.")
    server: str | None = Field(
        None, min_length=1, description="URL of a `cert serve` that measures instead."
    )
    serve_host: str = Field(
        "127.0.0.1", min_length=1, description="Address of `serve`; not loopback needs a token."
    )
    serve_port: _Int = Field(8000, ge=0, le=65535, description="Port of `serve`; 0 is any.")
    token: str | None = Field(
        None, min_length=16, repr=False, description="Bearer token of the server, as text."
    )
    token_file: str | None = Field(
        None, min_length=1, description="File that holds the bearer token."
    )
    max_body_bytes: _Int = Field(
        10 * 2**20, ge=1024, description="Larger requests are refused; of a batch, larger lines."
    )
    max_requests: _Int = Field(
        64, ge=1, description="Requests that run or wait; the next one is refused."
    )
    receive_timeout: _Float = Field(
        10.0, gt=0, description="Seconds in which a request must have arrived."
    )
    drain_timeout: _Float = Field(
        30.0, ge=0, description="Seconds that requests may go on after SIGTERM."
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave the sources to `load`, which has to know them apart."""
        return (init_settings,)

    @classmethod
    def from_env(cls) -> Self:
        """Read the environment over the defaults; no files.

        Raises:
            ConfigurationError: A variable has a wrong value; the message names it.
        """
        return cls._resolve([environment_layer(cls)])

    @classmethod
    def load(
        cls,
        overrides: Mapping[str, object] | None = None,
        *,
        config_file: Path | None = None,
    ) -> Self:
        """Read all sources, the nearest first.

        Args:
            overrides: Flags, by name of the setting; one that is None was not given.
            config_file: Read instead of the project's file. YAML, or TOML by its suffix.

        Raises:
            ConfigurationError: A source cannot be read, has an unknown key, or a wrong value;
                the message names the source and the key.
        """
        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        return cls._resolve(
            [
                Layer(given, dict.fromkeys(given, FLAG)),
                environment_layer(cls),
                project_layer() if config_file is None else file_layer(config_file),
                user_layer(),
            ]
        )

    def origins(self) -> dict[str, str]:
        """Return where each setting came from.

        Returns:
            By name of the setting: `default`, `flag`, `environment NAME`, or `file PATH`.
        """
        given = dict.fromkeys(self.model_fields_set, FLAG)
        return {
            name: self._origins.get(name, given.get(name, DEFAULT))
            for name in type(self).model_fields
        }

    def apply(self, *, stream: TextIO | None = None) -> None:
        """Configure logging as the settings say.

        Args:
            stream: What the output `stdout` means; None is `sys.stdout`.

        Raises:
            ConfigurationError: The log file is missing from the settings or cannot be opened.
        """
        from cert.observability.logging import configure_logging  # noqa: PLC0415 - only if used

        try:
            configure_logging(
                self.log_level,
                self.log_format,
                self.log_output,
                self.log_file,
                stream=stream,
                max_bytes=self.log_max_bytes,
                backup_count=self.log_backups,
            )
        except (ValueError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            origin = self.origins()["log_output" if self.log_file is None else "log_file"]
            raise ConfigurationError(
                f"log_file {escape_controls(self.log_file or 'is not set')} ({origin}): "
                f"{escape_controls(reason or str(error))}",
                hint="set LOG_FILE to a file that can be written, or LOG_OUTPUT=stdout",
            ) from error

    @classmethod
    def _resolve(cls, layers: Iterable[Layer]) -> Self:
        values: dict[str, object] = {}
        origins: dict[str, str] = {}
        for layer in layers:
            for key, value in layer.values.items():
                if key not in cls.model_fields:
                    raise unknown_key(key, layer.origins[key], known=cls.model_fields)
                if key not in values:
                    values[key] = value
                    origins[key] = layer.origins[key]
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            raise invalid_value(error, origins) from error
        config._origins = origins  # noqa: SLF001 - its own
        return config
