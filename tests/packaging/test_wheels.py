from __future__ import annotations

import configparser
from pathlib import Path
from typing import TYPE_CHECKING

import cert

if TYPE_CHECKING:
    from .conftest import Wheel

ROOT = Path(__file__).resolve().parents[2]
MAX_MODEL_BYTES = 20_000_000


def unconditional(wheel: Wheel) -> set[str]:
    return {line for line in wheel.requirements() if "extra ==" not in line}


def of_extra(wheel: Wheel, extra: str) -> set[str]:
    """Requirements of an extra, without their condition."""
    return {
        line.split(";")[0].strip()
        for line in wheel.requirements()
        if f"extra == '{extra}'" in line.replace('"', "'")
    }


def test_the_full_wheel_holds_every_file_of_the_packages_and_the_policies(
    full_wheel: Wheel,
) -> None:
    expected = {
        str(path.relative_to(ROOT)): path
        for package in ("cert", "cert_cli")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for path in (ROOT / "configs").rglob("*"):
        if path.is_file():
            expected[f"cert/_configs/{path.relative_to(ROOT / 'configs')}"] = path
    for name in ("record-format.md", "verifier/cert_verify.py"):
        expected[f"cert/_docs/{name}"] = ROOT / "docs" / name
    assert full_wheel.files == {name: path.read_bytes() for name, path in expected.items()}
    assert {
        "cert/py.typed",
        "cert_cli/py.typed",
        "cert/_configs/policies/default.yaml",
        "cert/reference/model/model.safetensors",
        "cert/reference/model/tokenizer.json",
        "cert/reference/model/MODEL_CARD.md",
    } <= set(full_wheel.files)


def test_the_embedded_model_stays_small(full_wheel: Wheel) -> None:
    model = sum(
        len(data) for name, data in full_wheel.files.items() if name.startswith("cert/reference/")
    )
    assert 0 < model <= MAX_MODEL_BYTES


def test_both_wheels_hold_the_same_bytes(full_wheel: Wheel, core_wheel: Wheel) -> None:
    files = dict(core_wheel.files)
    assert files.pop("cert/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert files == full_wheel.files


def test_both_say_the_same_of_themselves(full_wheel: Wheel, core_wheel: Wheel) -> None:
    for field in ("Version", "Requires-Python", "License-Expression", "Keywords"):
        assert full_wheel.metadata[field] == core_wheel.metadata[field] is not None
    assert full_wheel.metadata["Version"] == cert.__version__
    assert full_wheel.metadata.get_all("Classifier") == core_wheel.metadata.get_all("Classifier")
    assert full_wheel.entry_points == core_wheel.entry_points
    scripts = configparser.ConfigParser()
    scripts.read_string(full_wheel.entry_points)
    assert dict(scripts["console_scripts"]) == {"cert": "cert_cli.__main__:main"}


def test_the_full_wheel_depends_on_the_core_and_its_local_extra(
    full_wheel: Wheel, core_wheel: Wheel
) -> None:
    core, local = unconditional(core_wheel), of_extra(core_wheel, "local")
    assert unconditional(full_wheel) == core | local
    assert not core & local
    names = " ".join(sorted(core))
    assert "numpy" in names
    for heavy in ("torch", "transformers", "tokenizers", "safetensors", "pyarrow"):
        assert heavy not in names


def test_the_extras_mean_the_same_in_both(full_wheel: Wheel, core_wheel: Wheel) -> None:
    full, core = (set(w.metadata.get_all("Provides-Extra") or []) for w in (full_wheel, core_wheel))
    expected = {"local", "quantize", "parquet", "timestamp", "coordination", "serve", "ray", "vllm"}
    expected |= {"traces", "all"}
    assert core == expected
    assert full == expected | {"dev"}
    local = of_extra(core_wheel, "local")
    for extra in expected:
        assert of_extra(full_wheel, extra) == of_extra(core_wheel, extra) - local
