"""The images: what goes to the engine, and their very steps in a fresh environment without one."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.cli.helpers import clean_environment
from tests.deployments.ops_tools import DEPLOYMENTS, ROOT, passes

if TYPE_CHECKING:
    from pathlib import Path

DOCKER = DEPLOYMENTS / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))


def instructions(path: Path) -> list[str]:
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def allowed() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines, "an allow-list begins with everything"
    return [line[1:] for line in lines if line.startswith("!")]


def test_the_engine_gets_what_the_wheels_are_built_from_and_no_secret() -> None:
    for path in allowed():
        assert (ROOT / path).exists(), path
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"**/*.pem", "**/*.key"} <= set(lines)
    assert not {".git", ".venv", "demo", "tests"} & set(allowed())


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix)
def test_an_image_runs_as_a_numbered_user_and_holds_no_secret(path: Path) -> None:
    lines = instructions(path)
    assert "USER 65532:65532" in lines
    assert 'ENTRYPOINT ["cert"]' in lines
    assert "STOPSIGNAL SIGTERM" in lines
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    assert not [line for line in lines if re.match(r"(ENV|ARG).*(TOKEN|KEY|SECRET|PASSW)", line)]
    for copied in (line.split()[1] for line in lines if re.match(r"COPY [^-.]", line)):
        assert any(copied.startswith(one) for one in allowed())
    stages = [line for line in lines if line.startswith("FROM")]
    names = [line.split(" AS ")[1] for line in stages]
    assert all(re.match(r"FROM (\$\{PYTHON_IMAGE\}|[a-z-]+) AS ", line) for line in stages)
    if path.suffix == ".hamiltonian":
        assert names[-2:] == ["cpu", "gpu"]  # the last one is built where none is named


def test_the_steps_are_refused_without_a_name() -> None:
    done = subprocess.run([DOCKER / "build.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "wheels DIR" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_images_steps_make_a_server_that_answers(tmp_path: Path) -> None:
    context = tmp_path / "src"
    for one in allowed():
        skip = shutil.ignore_patterns("__pycache__")
        target = context / one
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / one).is_dir():
            shutil.copytree(ROOT / one, target, ignore=skip)
        else:
            shutil.copy(ROOT / one, target)
    steps = [line for line in instructions(DOCKER / "Dockerfile.hamiltonian") if "build.sh" in line]
    steps = [line.removeprefix("RUN ") for line in steps]
    assert len(steps) == 3
    for step in (steps[0], steps[1]):
        here = step.replace("/wheels", str(tmp_path / "wheels"))
        here = here.replace("/opt/cert", str(tmp_path / "opt"))
        passes("sh", "-c", here, cwd=context, timeout=1500)
    assert len(list((tmp_path / "wheels").glob("*.whl"))) == 2
    settings = (DOCKER / "cert.yaml").read_text()
    settings = settings.replace("/var/lib/cert", str(tmp_path / "state"))
    settings = settings.replace("/run/secrets", str(tmp_path))
    settings = re.sub(r"host: 0\.0\.0\.0", "host: 127.0.0.1", settings)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "cert.yaml").write_text(settings)
    (tmp_path / "state").mkdir()
    program = tmp_path / "opt" / "bin" / "cert"
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        api, ops = one.getsockname()[1], two.getsockname()[1]
    env = {**clean_environment(), "CERT_SERVE_PORT": str(api), "METRICS_PORT": str(ops)}
    env["HOME"] = str(tmp_path / "state")

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [program, "serve"], cwd=tmp_path / "etc", env=env, stderr=subprocess.PIPE
        )

    refused = start()
    _, err = refused.communicate(timeout=120)
    assert refused.returncode == 2
    assert b"cert-token" in err
    (tmp_path / "cert-token").write_text("a-token-that-nobody-guesses")
    server = start()
    try:
        _wait_until_ready(ops)
        request = urllib.request.Request(
            f"http://127.0.0.1:{api}/v1/analyze",
            data=b'{"prompt": "Once upon a time", "sampling": {"max_new_tokens": 4}}',
            headers={
                "Authorization": "Bearer a-token-that-nobody-guesses",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            assert json.load(answer)["kind"] == "analysis"
        server.terminate()
        assert server.wait(timeout=60) == 143
    finally:
        server.kill()
        server.communicate()
    passes(program, "verify", tmp_path / "state" / "ledger", cwd=tmp_path / "etc", env=env)


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 240
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        else:
            return
