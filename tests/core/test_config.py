from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from cert.core.config import CERTConfig
from cert.core.config_sources import environment_variable, user_file
from cert.core.errors import ConfigurationError
from cert.core.strict_yaml import parse_yaml

YAML = "(file cert.yaml)"
TOML = "(file pyproject.toml)"
PRESETS = Path(__file__).parents[2] / "configs" / "presets"

SPECIFIED = {
    "LOG_LEVEL": ("DEBUG", "log_level", "DEBUG"),
    "LOG_FORMAT": ("human", "log_format", "human"),
    "LOG_OUTPUT": ("both", "log_output", "both"),
    "LOG_FILE": ("/var/log/cert.log", "log_file", "/var/log/cert.log"),
    "METRICS_ENABLED": ("true", "metrics_enabled", True),
    "METRICS_PORT": ("9191", "metrics_port", 9191),
    "PRELOAD_MODELS": ("true", "preload", True),
    "DEVICE": ("cpu", "device", "cpu"),
    "MAX_MEMORY_GB": ("8", "max_memory_gb", 8.0),
}

OURS = {
    "CERT_MODEL": ("folder/x", "model", "folder/x"),
    "CERT_QUANTIZE": ("8bit", "quantize", "8bit"),
    "CERT_DTYPE": ("bfloat16", "dtype", "bfloat16"),
    "CERT_POLICY": ("strict", "policy", "strict"),
    "CERT_MAX_NEW_TOKENS": ("7", "max_new_tokens", 7),
    "CERT_TEMPERATURE": ("0.0", "temperature", 0.0),
    "CERT_TOP_K": ("5", "top_k", 5),
    "CERT_TOP_P": ("0.5", "top_p", 0.5),
    "CERT_SEED": ("0", "seed", 0),
    "CERT_TIMEOUT": ("1.5", "timeout", 1.5),
    "CERT_CHAT": ("never", "chat", "never"),
    "CERT_STOP": ('["\\n", "END"]', "stop", ("\n", "END")),
    "CERT_BATCH_ROWS": ("4", "batch_rows", 4),
    "CERT_CACHE_SIZE": ("0", "cache_size", 0),
    "CERT_MAX_PROMPT_CHARS": ("10", "max_prompt_chars", 10),
    "CERT_OFFLINE": ("false", "offline", False),
    "CERT_MODEL_ALIASES": ('{"gpt2": "m/gpt2"}', "model_aliases", {"gpt2": "m/gpt2"}),
    "CERT_CONTENT": ("committed", "content", "committed"),
    "CERT_LEDGER": ("evidence", "ledger", "evidence"),
    "CERT_ON_LEDGER_FAILURE": ("warn", "on_ledger_failure", "warn"),
    "CERT_KEYS": ("keys", "keys", "keys"),
    "CERT_SIGNING_KEY": ("key.pem", "signing_key", "key.pem"),
    "CERT_VERIFY_KEY": ("key.pub", "verify_key", "key.pub"),
    "CERT_RETENTION_DAYS": ("183", "retention_days", 183),
    "CERT_TIMESTAMP_URL": ("http://127.0.0.1/tsa", "timestamp_url", "http://127.0.0.1/tsa"),
    "CERT_LOG_MAX_BYTES": ("1000", "log_max_bytes", 1000),
    "CERT_LOG_BACKUPS": ("0", "log_backups", 0),
    "CERT_TRACES": ("otlp", "traces", "otlp"),
    "CERT_METRICS_HOST": ("::1", "metrics_host", "::1"),
    "CERT_SERVER": ("http://127.0.0.1:8000", "server", "http://127.0.0.1:8000"),
    "CERT_SERVE_HOST": ("::1", "serve_host", "::1"),
    "CERT_SERVE_PORT": ("0", "serve_port", 0),
    "CERT_TOKEN": ("0123456789abcdef", "token", "0123456789abcdef"),
    "CERT_TOKEN_FILE": ("token", "token_file", "token"),
    "CERT_MAX_BODY_BYTES": ("2048", "max_body_bytes", 2048),
    "CERT_MAX_REQUESTS": ("3", "max_requests", 3),
    "CERT_RECEIVE_TIMEOUT": ("2.5", "receive_timeout", 2.5),
    "CERT_DRAIN_TIMEOUT": ("0", "drain_timeout", 0.0),
}

pytestmark = pytest.mark.usefixtures("bare")


def test_every_setting_has_a_variable_in_this_file() -> None:
    named = {field: variable for variable, (_, field, _) in {**SPECIFIED, **OURS}.items()}
    assert named == {name: environment_variable(name) for name in CERTConfig.model_fields}


@pytest.mark.parametrize("variable", [*SPECIFIED, *OURS])
def test_every_variable_is_read(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, field, value = {**SPECIFIED, **OURS}[variable]
    monkeypatch.setenv(variable, text)
    for config in (CERTConfig.from_env(), CERTConfig.load()):
        assert getattr(config, field) == value
        assert type(getattr(config, field)) is type(value)
        origins = config.origins()
        assert origins.pop(field) == f"environment {variable}"
        assert set(origins.values()) == {"default"}


def test_an_empty_variable_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "")
    assert CERTConfig.from_env().device == "auto"


def test_names_of_variables_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("device", "cpu")
    monkeypatch.setenv("cert_top_k", "5")
    config = CERTConfig.from_env()
    assert (config.device, config.top_k) == ("auto", 0)


def test_words_for_choices_may_be_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "warning")
    monkeypatch.setenv("LOG_FORMAT", "JSON")
    config = CERTConfig.from_env()
    assert (config.log_level, config.log_format) == ("WARNING", "json")


def test_the_constructor_looks_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "cpu")
    config = CERTConfig(seed=3)
    assert (config.device, config.seed) == ("auto", 3)
    assert config.origins()["seed"] == "flag"
    with pytest.raises(ValidationError):
        CERTConfig(device="gpu")  # type: ignore[arg-type]


def test_it_is_immutable() -> None:
    with pytest.raises(ValidationError):
        CERTConfig().device = "cpu"  # type: ignore[misc]


def test_the_nearest_source_wins(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = user_file()
    user.parent.mkdir(parents=True)
    user.write_text("top_k: 1\nseed: 1\nbatch_rows: 1\ncache_size: 1\n")
    (bare / "cert.yaml").write_text("top_k: 2\nseed: 2\nbatch_rows: 2\n")
    monkeypatch.setenv("CERT_TOP_K", "3")
    monkeypatch.setenv("CERT_SEED", "3")
    config = CERTConfig.load({"top_k": 4, "timeout": None})
    assert (config.top_k, config.seed, config.batch_rows, config.cache_size) == (4, 3, 2, 1)
    origins = config.origins()
    assert origins["top_k"] == "flag"
    assert origins["seed"] == "environment CERT_SEED"
    assert origins["batch_rows"] == "file cert.yaml"
    assert origins["cache_size"] == f"file {user}"
    assert origins["timeout"] == "default"


def test_zero_given_is_zero_and_beats_what_lies_beneath(bare: Path) -> None:
    (bare / "cert.yaml").write_text("temperature: 0.7\noffline: true\nstop: [a]\n")
    config = CERTConfig.load({"temperature": 0.0, "offline": False, "stop": []})
    assert (config.temperature, config.offline, config.stop) == (0.0, False, ())


def test_lists_and_maps_are_replaced_whole(bare: Path) -> None:
    (bare / "cert.yaml").write_text("model_aliases: {a: x, b: y}\n")
    assert CERTConfig.load({"model_aliases": {"c": "z"}}).model_aliases == {"c": "z"}


def test_pyproject_is_read(bare: Path) -> None:
    (bare / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.cert]\ndevice = "cpu"\n')
    config = CERTConfig.load()
    assert config.device == "cpu"
    assert config.origins()["device"] == "file pyproject.toml"


@pytest.mark.parametrize("text", ["", "[tool]\nx = 1\n", '[project]\nname = "x"\n'])
def test_a_pyproject_without_settings_has_none(bare: Path, text: str) -> None:
    (bare / "pyproject.toml").write_text(text)
    (bare / "cert.yaml").write_text("device: cpu\n")
    assert CERTConfig.load().origins()["device"] == "file cert.yaml"


def test_two_project_files_are_one_too_many(bare: Path) -> None:
    (bare / "pyproject.toml").write_text('[tool.cert]\ndevice = "cpu"\n')
    (bare / "cert.yaml").write_text("device: cuda\n")
    with pytest.raises(ConfigurationError, match=r"both cert.yaml and \[tool.cert\]"):
        CERTConfig.load()


def test_a_named_file_replaces_the_projects(bare: Path, tmp_path: Path) -> None:
    (bare / "cert.yaml").write_text("device: cuda\nseed: 1\n")
    other = tmp_path / "other.toml"
    other.write_text('device = "cpu"\n')
    config = CERTConfig.load(config_file=other)
    assert (config.device, config.seed) == ("cpu", None)
    assert config.origins()["device"] == f"file {other}"


def test_an_empty_file_says_nothing(bare: Path) -> None:
    (bare / "cert.yaml").write_text("# nothing\n")
    assert set(CERTConfig.load().origins().values()) == {"default"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cert.yaml", "modle: x", f"unknown setting 'modle' {YAML}; did you mean 'model'?"),
        ("cert.yaml", "top-k: 3", f"unknown setting 'top-k' {YAML}; did you mean 'top_k'?"),
        ("cert.yaml", "zzz: 3", "unknown setting 'zzz' (file cert.yaml)"),
        (
            "cert.yaml",
            "device: gpu",
            f"device {YAML}: it should be 'auto', 'cpu' or 'cuda', got 'gpu'",
        ),
        (
            "cert.yaml",
            "top_k: true",
            f"top_k {YAML}: a number is expected, not a truth value, got True",
        ),
        ("cert.yaml", "timeout: no", "timeout (file cert.yaml)"),
        ("cert.yaml", "timeout: 0", "timeout (file cert.yaml): it should be greater than 0, got 0"),
        ("cert.yaml", "temperature: .inf", "cert.yaml line 1: .inf is not a finite number"),
        ("cert.yaml", "seed: 1.5", "seed (file cert.yaml)"),
        ("cert.yaml", "stop: [1]", "stop (file cert.yaml)"),
        ("cert.yaml", "stop: ['']", "stop (file cert.yaml)"),
        ("cert.yaml", "policy: ''", "policy (file cert.yaml)"),
        ("cert.yaml", "model_aliases: [1]", "model_aliases (file cert.yaml)"),
        ("cert.yaml", "- device", "cert.yaml: settings are a map of names to values, got list"),
        ("cert.yaml", "device: [", "cert.yaml line"),
        (
            "pyproject.toml",
            "[tool.cert]\ndevcie = 'cpu'",
            f"unknown setting 'devcie' {TOML}; did you mean 'device'?",
        ),
        ("pyproject.toml", "[tool.cert]\ntop_p = nan", "top_p (file pyproject.toml)"),
        ("pyproject.toml", "[tool]\ncert = 3", "pyproject.toml: settings are a map"),
        ("pyproject.toml", "[tool.cert", "pyproject.toml: "),
        ("pyproject.toml", "x = " + "[" * 5000, "pyproject.toml: "),
        ("pyproject.toml", "x = '" + "x" * 300_000 + "'", "pyproject.toml: larger than"),
    ],
)
def test_errors_name_the_source_and_the_key(bare: Path, name: str, text: str, message: str) -> None:
    (bare / name).write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        CERTConfig.load()
    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        CERTConfig.load({"device": "gpu", "top_p": 2})
    assert "device (flag): " in caught.value.message
    assert "top_p (flag): " in caught.value.message


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_PORT", "70000")
    with pytest.raises(ConfigurationError, match=r"^metrics_port \(environment METRICS_PORT\): "):
        CERTConfig.from_env()


def test_a_list_that_is_no_json_is_named_and_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERT_STOP", "END")
    with pytest.raises(ConfigurationError, match=r"^stop \(environment CERT_STOP\)") as caught:
        CERTConfig.from_env()
    assert caught.value.hint == """for example CERT_STOP='["\\n\\n"]'"""


def test_errors_show_no_secrets_and_no_control_characters() -> None:
    with pytest.raises(ConfigurationError) as caught:
        CERTConfig.load({"device": "\x1b[2J" + "hf_" + "a" * 30})
    assert "hf_a" not in caught.value.message
    assert "\x1b" not in caught.value.message
    with pytest.raises(ConfigurationError) as caught:
        CERTConfig.load({"api_key": "abc", "device\n": 1})
    assert "\n" not in caught.value.message
    with pytest.raises(ConfigurationError) as caught:
        CERTConfig.load({"device": "x" * 500})
    assert len(caught.value.message) < 200


def test_bytes_that_are_no_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "CERT_MODEL", "caf\udce9")
    with pytest.raises(ConfigurationError, match=r"model \(environment CERT_MODEL\)"):
        CERTConfig.from_env()


@pytest.mark.parametrize("path", ["missing.yaml", ".", "nul\0.yaml"])
def test_a_named_file_that_cannot_be_read(path: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CERTConfig.load(config_file=Path(path))
    assert "\0" not in caught.value.message


def test_toml_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"model = '\xe9'")
    with pytest.raises(ConfigurationError, match="not UTF-8 at byte 9"):
        CERTConfig.load(config_file=file)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("CERT_DEVICE", "DEVICE"),
        ("CERT_MODLE", "CERT_MODEL"),
        ("CERT_MAX_NEW_TOKEN", "CERT_MAX_NEW_TOKENS"),
    ],
)
def test_a_misspelt_variable_is_warned_about(
    variable: str, meant: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(variable, "x")
    CERTConfig.from_env()
    assert caplog.messages == [
        f"the environment variable {variable} is not read; did you mean {meant}?"
    ]


def test_others_variables_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CERT_FILE", "/etc/ssl/cert.pem")
    CERTConfig.from_env()
    assert caplog.messages == []


def test_the_example_has_every_setting_with_its_default() -> None:
    example = parse_yaml((PRESETS / "cert.yaml").read_bytes(), source="example")
    config = CERTConfig()
    assert isinstance(example, dict)
    assert example == config.model_dump(mode="json")
    assert set(example) == set(CERTConfig.model_fields)


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.yaml")), ids=lambda p: p.name)
def test_presets_load(preset: Path) -> None:
    origins = CERTConfig.load(config_file=preset).origins()
    assert f"file {preset}" in origins.values()


def test_the_examples_comments_name_the_variables() -> None:
    text = (PRESETS / "cert.yaml").read_text()
    for line in text.splitlines():
        if ": " in line and not line.startswith("#"):
            assert environment_variable(line.split(":")[0]) in line


def test_apply_configures_logging(tmp_path: Path) -> None:
    file, stream = tmp_path / "cert.log", io.StringIO()
    config = CERTConfig(log_output="both", log_file=str(file), log_level="DEBUG")
    config.apply(stream=stream)
    logging.getLogger("cert.x").debug("hello")
    assert json.loads(stream.getvalue())["message"] == "hello"
    assert file.read_text() == stream.getvalue()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"log_output": "file"}, "log_file is not set (environment LOG_OUTPUT): "),
        (
            {"log_output": "file", "log_file": "no/folder/x.log"},
            "log_file no/folder/x.log (environment LOG_FILE): No such file",
        ),
        ({"log_output": "file", "log_file": "."}, "log_file . (environment LOG_FILE): "),
    ],
)
def test_a_log_file_that_cannot_be_written(
    values: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name.upper(), value)
    with pytest.raises(ConfigurationError) as caught:
        CERTConfig.from_env().apply()
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_importing_the_packages_loads_nothing_heavy() -> None:
    program = (
        "import sys, cert.core, cert.observability, cert.core.errors\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'prometheus_client', 'yaml', 'tenacity'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import cert.core.config, cert.core.retry, cert.observability.metrics\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "assert set(dir(cert.core)) >= {'CERTConfig', 'retry'}\n"
        "assert all(getattr(m, n) for m in (cert.core, cert.observability) for n in m.__all__)\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root, timeout=60)
