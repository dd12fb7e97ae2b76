"""Where settings come from: the environment and files, each as a layer that knows its origins."""

from __future__ import annotations

import difflib
import logging
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import platformdirs
from pydantic_settings import EnvSettingsSource

from cert.core.errors import ConfigurationError
from cert.core.strict_yaml import MAX_BYTES, parse_yaml
from cert.observability.controls import escape_controls
from cert.observability.redaction import is_secret_name, redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import ValidationError
    from pydantic_settings import BaseSettings

logger = logging.getLogger(__name__)

DEFAULT: Final = "default"
FLAG: Final = "flag"
PREFIX: Final = "CERT_"
FILE_NAME: Final = "cert.yaml"
PYPROJECT: Final = "pyproject.toml"

# Where the specification names a variable, that is its only name.
SPECIFIED_VARIABLES: Final = MappingProxyType(
    {
        "device": "DEVICE",
        "preload": "PRELOAD_MODELS",
        "max_memory_gb": "MAX_MEMORY_GB",
        "log_level": "LOG_LEVEL",
        "log_format": "LOG_FORMAT",
        "log_output": "LOG_OUTPUT",
        "log_file": "LOG_FILE",
        "metrics_enabled": "METRICS_ENABLED",
        "metrics_port": "METRICS_PORT",
    }
)


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source says: value by setting, and origin by setting."""

    values: Mapping[str, object] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


def environment_variable(setting: str) -> str:
    """Return the name of the variable that sets a setting.

    >>> environment_variable("device"), environment_variable("top_k")
    ('DEVICE', 'CERT_TOP_K')
    """
    return SPECIFIED_VARIABLES.get(setting, PREFIX + setting.upper())


def environment_layer(settings: type[BaseSettings]) -> Layer:
    """Read the environment variables of the settings; an empty one counts as absent.

    A variable that nearly has a setting's name is warned about: it would be ignored in silence.
    It is no error, because others use `CERT_` for certificates.

    Raises:
        ConfigurationError: A list or map is not JSON.
    """
    source = EnvSettingsSource(settings)
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    known = {environment_variable(name): name for name in settings.model_fields}
    for variable, name in known.items():
        raw = os.environ.get(variable)
        if not raw:
            continue
        origins[name] = f"environment {variable}"
        try:
            values[name] = source.prepare_field_value(
                name, settings.model_fields[name], raw, value_is_complex=False
            )
        except ValueError as error:
            raise ConfigurationError(
                f"{name} (environment {variable}): not JSON, got {_shown(raw)}",
                hint=f"for example {variable}='{_EXAMPLES.get(name, '[]')}'",
            ) from error
    for variable in sorted(os.environ.keys() - known.keys()):
        if variable.startswith(PREFIX):
            _warn_if_misspelt(variable, known)
    return Layer(values, origins)


_EXAMPLES: Final = {"stop": '["\\n\\n"]', "model_aliases": '{"gpt2": "models/gpt2"}'}


def project_layer() -> Layer:
    """Read `./cert.yaml`, or `[tool.cert]` of `./pyproject.toml`; neither need be there.

    Raises:
        ConfigurationError: One of them is broken, or both have settings.
    """
    own, pyproject = Path(FILE_NAME), Path(PYPROJECT)
    layer = file_layer(own) if own.is_file() else None
    table = file_layer(pyproject) if pyproject.is_file() else Layer()
    if layer is None:
        return table
    if table.values:
        raise ConfigurationError(
            f"both {FILE_NAME} and [tool.cert] of {PYPROJECT} have settings",
            hint="keep one of them, or name one with --config",
        )
    return layer


def user_layer() -> Layer:
    """Read the user's own file, if there is one; see `user_file`."""
    path = user_file()
    return file_layer(path) if path.is_file() else Layer()


def user_file() -> Path:
    """Return the path of the user's own settings, for example `~/.config/cert/cert.yaml`."""
    return platformdirs.user_config_path("cert", appauthor=False) / FILE_NAME


def file_layer(path: Path) -> Layer:
    """Read a file of settings.

    Args:
        path: TOML by its suffix (`pyproject.toml`: the table `[tool.cert]`), YAML otherwise.

    Raises:
        ConfigurationError: It cannot be read, is too large, or holds no map.
    """
    shown = escape_controls(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigurationError(
            f"{shown}: {reason or error}", hint="cert config show --origin lists what is read"
        ) from error
    if path.suffix == ".toml":
        content = _parse_toml(data, source=shown, is_pyproject=path.name == PYPROJECT)
    else:
        content = parse_yaml(data, source=shown)
    if content is None:
        return Layer()
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{shown}: settings are a map of names to values, got {type(content).__name__}"
        )
    return Layer(content, dict.fromkeys(content, f"file {shown}"))


def unknown_key(key: object, origin: str, *, known: Iterable[str]) -> ConfigurationError:
    """Build the error for a key that is no setting, with what may have been meant."""
    name = escape_controls(redact(str(key)))[:100]
    meant = difflib.get_close_matches(str(key).lower().replace("-", "_"), known, n=1)
    did_you_mean = f"; did you mean {meant[0]!r}?" if meant else ""
    return ConfigurationError(
        f"unknown setting {name!r} ({origin}){did_you_mean}",
        hint="cert config show lists the settings",
    )


def invalid_value(error: ValidationError, origins: Mapping[str, str]) -> ConfigurationError:
    """Build the error for wrong values, each with where it came from."""
    lines = []
    for detail in error.errors(include_url=False, include_context=False):
        name = str(detail["loc"][0]) if detail["loc"] else "settings"
        reason = escape_controls(detail["msg"].removeprefix("Value error, "))
        reason = reason.replace("Input should be", "it should be")
        origin = origins.get(name, DEFAULT)
        # Of a secret, also a wrong one says too much.
        got = "" if is_secret_name(name) else f", got {_shown(detail['input'])}"
        lines.append(f"{name} ({origin}): {reason}{got}")
    return ConfigurationError("; ".join(lines))


def _parse_toml(data: bytes, *, source: str, is_pyproject: bool) -> object:
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{source}: larger than {MAX_BYTES} bytes")
    try:
        content: object = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{source}: not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{source}: {escape_controls(str(error))}") from error
    for key in ("tool", "cert") if is_pyproject else ():
        content = content.get(key) if isinstance(content, dict) else content
    return content


def _warn_if_misspelt(variable: str, known: Mapping[str, str]) -> None:
    meant = environment_variable(variable.removeprefix(PREFIX).lower())
    if meant not in known:
        meant = next(iter(difflib.get_close_matches(variable, known, n=1, cutoff=0.85)), "")
    if meant:
        logger.warning("the environment variable %s is not read; did you mean %s?", variable, meant)


def _shown(value: object) -> str:
    text = escape_controls(redact(repr(value)))
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line of a terminal
