from __future__ import annotations

import pytest

from cert.core.config import CERTConfig
from cert.core.errors import ConfigurationError
from cert.trajectory.settings import settle


def test_nothing_given_is_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "cpu")
    monkeypatch.setenv("PRELOAD_MODELS", "true")
    monkeypatch.setenv("CERT_TEMPERATURE", "0.5")
    found = settle(None)
    assert (found.device, found.preload, found.temperature) == ("cpu", True, 0.5)


def test_arguments_win_over_the_environment_also_where_they_are_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRELOAD_MODELS", "true")
    monkeypatch.setenv("CERT_TEMPERATURE", "0.5")
    monkeypatch.setenv("CERT_CACHE_SIZE", "7")
    found = settle(None, preload=False, temperature=0.0, cache_size=0, device=None)
    assert (found.preload, found.temperature, found.cache_size) == (False, 0.0, 0)


def test_a_configuration_given_shuts_the_environment_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "cpu")
    assert settle(CERTConfig(device="cuda"), top_k=3).device == "cuda"


def test_a_file_in_the_current_folder_is_not_obeyed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    (tmp_path / "cert.yaml").write_text("device: cuda\n")
    monkeypatch.chdir(tmp_path)
    assert settle(None).device == "auto"


def test_use_8bit_is_quantize_8bit() -> None:
    assert settle(None, use_8bit=True).quantize == "8bit"
    assert settle(None, use_8bit=True, quantize="8bit").quantize == "8bit"


@pytest.mark.parametrize("other", ["none", "4bit"])
def test_use_8bit_contradicts_other_quantizations(other: str) -> None:
    with pytest.raises(ConfigurationError, match=f"use_8bit=True contradicts quantize='{other}'"):
        settle(None, use_8bit=True, quantize=other)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": -1.0}, r"temperature \(argument\)"),
        ({"max_new_tokens": 0}, r"max_new_tokens \(argument\)"),
        ({"device": "tpu"}, r"device \(argument\)"),
        ({"chat": "perhaps"}, r"chat \(argument\)"),
        ({"stop": "one string"}, r"stop \(argument\)"),
    ],
)
def test_wrong_values_are_named_with_where_they_came_from(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        settle(None, **given)
