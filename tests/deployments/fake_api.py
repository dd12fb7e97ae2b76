"""A Kubernetes API that keeps objects in memory: what `kubectl apply` and `scale` use of it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

RESOURCES = {
    "v1": {
        "namespaces": "Namespace",
        "services": "Service",
        "configmaps": "ConfigMap",
        "serviceaccounts": "ServiceAccount",
        "persistentvolumeclaims": "PersistentVolumeClaim",
    },
    "apps/v1": {"deployments": "Deployment", "statefulsets": "StatefulSet"},
    "batch/v1": {"cronjobs": "CronJob"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "autoscaling/v1": {"scales": "Scale"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
}


class FakeApi(ThreadingHTTPServer):
    """The objects, by the path that they are at."""

    daemon_threads = True

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def names(self, kind: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.objects.values() if one["kind"] == kind}


@contextmanager
def serve_fake_api() -> Iterator[FakeApi]:
    """Run it until the block ends."""
    api = FakeApi()
    thread = threading.Thread(target=api.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.shutdown()
        api.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeApi

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = _discovery(path)
        if path.endswith("/scale"):
            found = self._scale(path.removesuffix("/scale"))
        if found is None:
            found = self.server.objects.get(path)
        if found is None:
            self._answer({"kind": "Status", "status": "Failure", "reason": "NotFound"}, 404)
        else:
            self._answer(found)

    def do_POST(self) -> None:
        body = self._body()
        path = f"{self.path.partition('?')[0]}/{body['metadata']['name']}"
        self.server.objects[path] = body
        self._answer(body, 201)

    def do_PATCH(self) -> None:
        path = self.path.partition("?")[0]
        body = self._body()
        if path.endswith("/scale"):
            owner = path.removesuffix("/scale")
            self.server.objects[owner]["spec"]["replicas"] = body["spec"]["replicas"]
            self._answer(self._scale(owner))
        else:
            self._answer(self.server.objects[path])

    def _scale(self, owner: str) -> dict[str, Any] | None:
        found = self.server.objects.get(owner)
        if found is None:
            return None
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {"name": found["metadata"]["name"], "namespace": "default"},
            "spec": {"replicas": found["spec"].get("replicas", 1)},
        }

    def _body(self) -> dict[str, Any]:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        body: dict[str, Any] = json.loads(data)
        return body

    def _answer(self, body: object, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _discovery(path: str) -> dict[str, Any] | None:
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = [_group(version) for version in RESOURCES if "/" in version]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in RESOURCES:
        return None
    verbs = ["create", "get", "list", "patch"]
    resources = [
        {"name": name, "kind": kind, "namespaced": kind != "Namespace", "verbs": verbs}
        for name, kind in RESOURCES[version].items()
    ]
    if version == "apps/v1":
        scale = {"name": "deployments/scale", "kind": "Scale", "namespaced": True, "verbs": verbs}
        resources.append({**scale, "group": "autoscaling", "version": "v1"})
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


def _group(group_version: str) -> dict[str, Any]:
    name, version = group_version.split("/")
    one = {"groupVersion": group_version, "version": version}
    return {"name": name, "versions": [one], "preferredVersion": one}
