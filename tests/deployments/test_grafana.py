"""The dashboards: every query has data in a real Prometheus that scrapes the real program."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cert.backends import transformers_local
from tests.cli.helpers import Processes, Program
from tests.deployments.ops_tools import DEPLOYMENTS, documents, tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GRAFANA = DEPLOYMENTS / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
TOKEN = "a-token-that-nobody-guesses"  # noqa: S105 - of this test alone
DEADLINE_S = 120.0
NAME = re.compile(r"\b(?:cert|process)_[a-z0-9_]+")


def load(path: Path) -> dict[str, Any]:
    board: dict[str, Any] = json.loads(path.read_text())
    return board


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Every query, by where it stands; Grafana's variables hold what they hold at first."""
    found = {}
    for path in DASHBOARDS:
        for panel in panels(load(path)):
            for target in panel["targets"]:
                expr = re.sub(r"\$(ledger|policy|instance)\b", ".*", target["expr"])
                expr = expr.replace("$__rate_interval", "1m")
                assert "$" not in expr
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = expr
    return found


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_one_that_grafana_takes(path: Path) -> None:
    board = load(path)
    assert board["uid"] == path.stem
    assert board["schemaVersion"] >= 39
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels(board):
        assert panel["description"].endswith(".")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {*variables, "__rate_interval"}


def test_provisioning_points_at_what_is_there() -> None:
    (source,) = documents(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")
    (boards,) = documents(GRAFANA / "provisioning" / "dashboards" / "cert.yaml")
    assert source["datasources"][0]["type"] == "prometheus"
    assert boards["providers"][0]["type"] == "file"
    assert {path.stem for path in DASHBOARDS} == {"cert-quality", "cert-service", "cert-evidence"}


@dataclass
class Stage:
    """A server, an exporter and a Prometheus that scrapes both, on free ports."""

    folder: Path
    cert: Program
    processes: Processes
    ports: dict[str, int] = field(default_factory=dict)

    def start(self, prometheus: str) -> None:
        self.ports = _free_ports("api", "ops", "exporter", "prometheus")
        (self.folder / "token").write_text(TOKEN)
        env = {
            "CERT_KEYS": str(self.folder / "keys"),
            "CERT_TOKEN_FILE": str(self.folder / "token"),
        }
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes.start(
            *("serve", "--port", str(self.ports["api"]), "--metrics-port", str(self.ports["ops"])),
            *("--ledger", self.folder / "served", "--max-new-tokens", "4", "-q"),
            env=env,
            **quiet,
        )
        self.processes.start(
            *("serve-metrics", f"nightly={self.folder / 'nightly'}", "--state", "none", "-q"),
            *("--port", str(self.ports["exporter"]), "--interval", "0.3"),
            env=env,
            **quiet,
        )
        self._start_prometheus(prometheus)

    def _start_prometheus(self, program: str) -> None:
        config = documents(DEPLOYMENTS / "prometheus" / "prometheus.yml")[0]
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        targets = {"cert-serve": self.ports["ops"], "cert-evidence": self.ports["exporter"]}
        config["scrape_configs"] = [
            {
                **job,
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "authorization": {"credentials_file": str(self.folder / "token")},
                "static_configs": [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}],
            }
            for job in config["scrape_configs"]
            if job["job_name"] in targets
        ]
        rules = self.folder / "rules"
        shutil.copytree(DEPLOYMENTS / "prometheus" / "rules", rules)
        for path in rules.iterdir():  # a test does not wait two minutes for a recording
            path.write_text(path.read_text().replace("interval: 2m", "interval: 1s"))
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.processes.started.append(
            subprocess.Popen(
                [
                    program,
                    f"--config.file={self.folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}",
                    "--log.level=error",
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def ask(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def has_data(self, expr: str) -> bool:
        try:
            result = self.ask("query", query=expr)["result"]
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return any(one["value"][1] != "NaN" for one in result)

    def work(self) -> None:
        """A batch into the ledger, one analysis by the server, and one that is too late there."""
        batch = self.folder / "prompts.txt"
        batch.write_text("Once upon a time\nThe capital of France is\n")
        policy = self.folder / "lenient.yaml"
        policy.write_text(
            "id: lenient\nversion: 1\nmin_tokens: 1\n"
            'checks: [{signal: perplexity, op: "<", threshold: 1000000}]\n'
        )
        ledger = ("--ledger", self.folder / "nightly", "--policy", policy)
        ran = self.cert("batch", batch, *ledger, "--max-new-tokens", "3")
        assert ran.code == 0, ran.err
        self.analyze({"prompt": "Once upon a time"})
        self.analyze({"prompt": "Once upon a time", "timeout_s": 1e-6})

    def analyze(self, body: dict[str, object]) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['api']}/v1/analyze",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        try:
            urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - loopback
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return  # loading still, or as asked


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    prometheus = tool("prometheus")
    folder = tmp_path_factory.mktemp("stage")
    with pytest.MonkeyPatch.context() as patch:
        program = Program()
        patch.setattr(transformers_local, "load_backend", program.loader)
        patch.setenv("CERT_KEYS", str(folder / "keys"))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        processes = Processes()
        set_up = Stage(folder, program, processes)
        try:
            set_up.start(prometheus)
            yield set_up
        finally:
            for process in processes.started:
                process.kill()
                process.wait()


def test_every_panel_shows_something(stage: Stage) -> None:
    pending = queries()
    assert len(pending) >= 35
    deadline = time.monotonic() + DEADLINE_S
    while pending and time.monotonic() < deadline:
        stage.work()
        time.sleep(1)
        pending = {name: expr for name, expr in pending.items() if not stage.has_data(expr)}
    assert pending == {}


def test_rules_and_dashboards_name_only_metrics_that_there_are(stage: Stage) -> None:
    names = set(stage.ask("label/__name__/values"))
    used = set()
    for expr in (*queries().values(), *_expressions()):
        without_labels = re.sub(r"\{[^}]*\}|(?:by|on|without) *\([^)]*\)", "", expr)
        used |= {name for name in NAME.findall(without_labels) if ":" + name not in without_labels}
    assert len(used) > 25
    assert used - names == set()


def test_prometheus_evaluates_every_rule(stage: Stage) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        groups = stage.ask("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        late = [rule["name"] for rule in rules if rule["health"] == "unknown"]
        if not late or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == late == []
    assert len(rules) == len(list(_expressions()))


def _expressions() -> Iterator[str]:
    for path in (DEPLOYMENTS / "prometheus" / "rules").glob("*.yml"):
        for group in documents(path)[0]["groups"]:
            yield from (rule["expr"] for rule in group["rules"])


def _free_ports(*names: str) -> dict[str, int]:
    """Ports that were free a moment ago."""
    with ExitStack() as stack:
        sockets = {name: stack.enter_context(socket.socket()) for name in names}
        for one in sockets.values():
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in sockets.items()}
