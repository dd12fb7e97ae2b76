"""The pins are complete and are what is installed, so that two clones get one environment."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
# What a CUDA build of torch brings along is pinned by torch itself, exactly.
PINNED_BY_TORCH = re.compile(r"nvidia-|cuda-|triton")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): pinned for name, pinned in found}


def closure() -> set[str]:
    """Names of everything that `.[dev]` installs here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = [Requirement(line) for line in project["build-system"]["requires"]]
    extras = project["project"]["optional-dependencies"]
    waiting = [*build, *(Requirement(line) for line in project["project"]["dependencies"])]
    waiting.append(Requirement("cert-framework[dev]"))
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == "cert-framework":
                wanted = [Requirement(line) for line in extras.get(extra, [])]
            else:
                wanted = [Requirement(line) for line in distribution(name).requires or []]
            waiting += [
                r for r in wanted if r.marker is None or r.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in seen} - {"cert-framework"}


def test_every_pin_is_exact_and_public() -> None:
    for name, pinned in pins().items():
        assert Version(pinned).local is None, name


def test_everything_that_is_installed_for_development_is_pinned() -> None:
    missing = {name for name in closure() if not PINNED_BY_TORCH.match(name)} - set(pins())
    assert missing == set()


def test_nothing_else_is_pinned() -> None:
    # Some pins belong to other Python versions or platforms than this one.
    conditional = {"colorama", "tomli", "typing-extensions", "jeepney", "secretstorage"}
    assert set(pins()) - closure() - conditional == set()


def test_what_is_installed_is_what_is_pinned() -> None:
    different = {}
    for name, pinned in pins().items():
        try:
            installed = Version(version(name)).public
        except PackageNotFoundError:
            continue
        if installed != pinned:
            different[name] = installed
    assert different == {}


@pytest.mark.parametrize("build", ["2.13.0", "2.13.0+cpu", "2.13.0+cu130"])
def test_a_pin_is_satisfied_by_every_build_of_that_version(build: str) -> None:
    assert Requirement(f"torch=={pins()['torch']}").specifier.contains(build)
