"""Which class of transformers a folder asks for, and the model made of it.

Nothing but classes that come with the installed transformers is ever used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from cert.backends.model_files import one_line
from cert.backends.quiet import quiet_transformers
from cert.core.errors import ModelRefusedError, ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedConfig, PreTrainedModel

    from cert.backends.folder import ModelFolder

_OURS = frozenset({"_name_or_path", "dtype", "torch_dtype", "transformers_weights"})
_NAMED = 5


def build_config(folder: ModelFolder) -> PreTrainedConfig:
    """Turn config.json into transformers' configuration object.

    What is decided here and not by the file (dtype, attention, names of files) is left out.

    Raises:
        ModelUnavailableError: The type is unknown to transformers, or the values don't fit it.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.models.auto.configuration_auto import (  # noqa: PLC0415 - seconds
        CONFIG_MAPPING,
    )

    values = {name: value for name, value in folder.config.items() if _is_theirs(name)}
    try:
        config_class = CONFIG_MAPPING[folder.model_type]
    except KeyError as error:
        message = f"the installed transformers knows no model type {folder.model_type!r}"
        raise ModelUnavailableError(message, hint="a newer transformers may") from error
    try:
        config: PreTrainedConfig = config_class.from_dict(values)
    except Exception as error:  # each class checks in its own way
        message = (
            f"{folder.path}: config.json does not fit {folder.model_type!r}: {one_line(error)}"
        )
        raise ModelUnavailableError(message) from error
    return config


def _is_theirs(name: str) -> bool:
    return name not in _OURS and not name.startswith(("_attn_implementation", "attn_implement"))


def find_model_class(folder: ModelFolder, config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Find the causal language model of a configuration.

    Raises:
        ModelUnavailableError: The folder holds another kind of model.
    """
    from transformers.models.auto.modeling_auto import (  # noqa: PLC0415 - seconds
        MODEL_FOR_CAUSAL_LM_MAPPING,
    )

    try:
        found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except (KeyError, ImportError) as error:
        message = f"{folder.model_type!r} has no causal language model in transformers"
        raise ModelUnavailableError(message) from error
    model_class: type[PreTrainedModel] = found[0] if isinstance(found, tuple) else found
    if folder.architecture not in {None, model_class.__name__}:
        message = f"{folder.path} holds a {folder.architecture}, not a {model_class.__name__}"
        raise ModelUnavailableError(message, hint="only causal language models can be measured")
    return model_class


def build_model(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    tensors: dict[str, torch.Tensor],
    dtype: torch.dtype,
    source: str,
) -> PreTrainedModel:
    """Make the model and put the tensors in; every one must have its place, and every place one.

    Raises:
        ModelRefusedError: Tensors are missing, left over, of another shape, or far fewer than the
            configuration asks for.
        ModelUnavailableError: The class cannot be built of the configuration.
    """
    attention = "sdpa" if getattr(model_class, "_supports_sdpa", False) else "eager"
    with quiet_transformers():
        try:
            _check_size(model_class, config, tensors, source)
            load: Any = model_class.from_pretrained
            model, report = load(
                None,
                config=config,
                state_dict=tensors,
                dtype=dtype,
                attn_implementation=attention,
                ignore_mismatched_sizes=True,  # they are named below
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except ModelRefusedError:
            raise
        except Exception as error:  # each class fails in its own way
            message = f"{source} makes no {model_class.__name__}: {one_line(error)}"
            raise ModelUnavailableError(message) from error
    _check_report(report, source)
    built: PreTrainedModel = model
    return built


def _check_size(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    tensors: Mapping[str, torch.Tensor],
    source: str,
) -> None:
    """Compare the model's size with the file's before anything of that size is allocated."""
    with torch.device("meta"):
        model = model_class(config)
    asked = sum(parameter.numel() for parameter in model.parameters())
    given = sum(tensor.numel() for tensor in tensors.values())
    # Twice: weights that are shared in the file may be counted twice in the model.
    if asked > 2 * given:
        message = f"{source}: config.json asks for {asked} parameters; the files hold {given}"
        raise ModelRefusedError(message)


def _check_report(report: Mapping[str, Any], source: str) -> None:
    for kind, key in (
        ("are missing", "missing_keys"),
        ("belong nowhere", "unexpected_keys"),
        ("have another shape", "mismatched_keys"),
        ("could not be used", "error_msgs"),
    ):
        found = report.get(key)
        if found:
            names = sorted(str(item[0] if isinstance(item, tuple) else item) for item in found)
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            message = f"{source}: tensors that {kind}: {', '.join(names[:_NAMED])}{more}"
            raise ModelRefusedError(message)
