"""The manifests: the specification's commands work as written, and every pod is confined."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cert.core.config import CERTConfig
from tests.deployments.fake_api import serve_fake_api
from tests.deployments.ops_tools import DEPLOYMENTS, ROOT, documents, passes, run, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

KUBERNETES = DEPLOYMENTS / "kubernetes"
FOLDERS = sorted(path.parent.relative_to(KUBERNETES) for path in KUBERNETES.rglob("Kustomization"))
# What no schema of Kubernetes itself knows.
FOREIGN = {"ServiceMonitor"}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What kustomize makes of each folder, by the folder's name."""
    kubectl = tool("kubectl")
    out = tmp_path_factory.mktemp("rendered")
    files = {}
    for folder in FOLDERS:
        files[folder.name] = out / f"{folder.name}.yaml"
        files[folder.name].write_text(passes(kubectl, "kustomize", KUBERNETES / folder))
    return files


def pods(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each pod's specification, with the name of what makes it."""
    for one in documents(path):
        spec = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one.get("spec")
        if one["kind"] in {"Deployment", "StatefulSet", "CronJob"}:
            yield one["metadata"]["name"], spec["template"]["spec"]


def test_the_specifications_commands_work_as_written(tmp_path: Path) -> None:
    kubectl = tool("kubectl")
    with serve_fake_api() as api:
        # Neither this user's clusters nor his caches.
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KUBECONFIG": "/dev/null"}

        def cluster(*args: str) -> str:
            command = (kubectl, f"--server={api.url}", *args)
            return passes(*command, cwd=ROOT, env=environment)

        folder = "deployments/kubernetes/hamiltonian/"
        cluster("apply", "--validate=false", "-f", folder)
        assert api.names("Deployment") == {"hamiltonian-monitor"}
        assert len(api.objects) == len(documents_of(KUBERNETES / "hamiltonian"))
        cluster("scale", "deployment", "hamiltonian-monitor", "--replicas=5")
        path = "/apis/apps/v1/namespaces/default/deployments/hamiltonian-monitor"
        assert api.objects[path]["spec"]["replicas"] == 5
        cluster("apply", "--validate=false", "-f", folder)  # again, which must not scale it back
        assert api.objects[path]["spec"]["replicas"] == 5


def documents_of(folder: Path) -> list[dict[str, Any]]:
    return [one for path in folder.glob("*.yaml") for one in documents(path)]


@pytest.mark.parametrize("folder", ["namespace", "hamiltonian", "nightly", "coordination"])
def test_plain_and_kustomized_are_the_same(folder: str, rendered: dict[str, Path]) -> None:
    def by_name(ones: list[dict[str, Any]]) -> dict[tuple[str, str], object]:
        return {(one["kind"], one["metadata"]["name"]): one for one in ones}

    assert by_name(documents_of(KUBERNETES / folder)) == by_name(documents(rendered[folder]))


def test_every_object_is_valid(rendered: dict[str, Path], tmp_path: Path) -> None:
    validate = tool("kubernetes-validate")
    everything = {str(one): one for path in rendered.values() for one in documents(path)}
    known = [one for one in everything.values() if one["kind"] not in FOREIGN]
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(known))
    # The oldest version that the manifests are for, which has no newer fields.
    out = run(validate, "-k", "1.30", "--strict", "--quiet", file)
    assert (out.returncode, out.stdout + out.stderr) == (0, "")
    known[0]["metadata"]["unheard"] = True
    file.write_text(yaml.safe_dump(known[0]))
    assert run(validate, "-k", "1.30", "--strict", "--quiet", file).returncode != 0


def test_checkov_and_hadolint_pass(rendered: dict[str, Path], tmp_path: Path) -> None:
    checkov, hadolint = tool("checkov"), tool("hadolint")
    everything = ("production", "spread", "gpu", "coordination")  # the others are in these
    dockerfiles = (DEPLOYMENTS / "docker").glob("Dockerfile.*")
    for path in (*(rendered[name] for name in everything), *dockerfiles):
        shutil.copy(path, tmp_path)
    options = ("--config-file", DEPLOYMENTS / "checkov.yaml", "--skip-download")
    passes(checkov, "--directory", tmp_path, *options)
    passes(hadolint, *tmp_path.glob("Dockerfile.*"))


def test_production_is_in_a_namespace_of_its_own(rendered: dict[str, Path]) -> None:
    found = documents(rendered["production"])
    assert len(found) == 16
    for one in found:
        where = one["metadata"].get("namespace", one["metadata"]["name"])
        assert where == "cert", one["metadata"]["name"]


def test_no_pod_may_more_than_it_needs(rendered: dict[str, Path]) -> None:
    seen = set()
    for path in rendered.values():
        for name, pod in pods(path):
            seen.add(name)
            context = pod["securityContext"]
            assert context["runAsUser"] == context["fsGroup"] == 65532
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
            for container in pod["containers"]:
                own = container["securityContext"]
                assert own["readOnlyRootFilesystem"] is own["runAsNonRoot"] is True
                assert own["capabilities"] == {"drop": ["ALL"]}
                assert {"/var/lib/cert", "/tmp"} <= mounts(container).keys()  # noqa: S108 - volumes
                assert "memory" in container["resources"]["limits"]
                for variable in container.get("env", ()):
                    assert "secretKeyRef" not in str(variable), "secrets are files"
    assert seen == {
        "hamiltonian-monitor",
        "cert-nightly",
        "cert-evidence-exporter",
        "coordination-monitor",
    }


def mounts(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["mountPath"]: one for one in container["volumeMounts"]}


def test_keys_are_mounted_as_files_not_as_links(rendered: dict[str, Path]) -> None:
    for path in rendered.values():
        for _, pod in pods(path):
            secrets = {one["name"] for one in pod["volumes"] if "secret" in one}
            for container in pod["containers"]:
                for mount in container["volumeMounts"]:
                    assert (mount["name"] in secrets) == ("subPath" in mount)


def test_who_shares_a_ledger_shares_a_node(rendered: dict[str, Path]) -> None:
    for path in rendered.values():
        for one in documents(path):
            spec = one.get("spec", {})
            template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
            claims = [
                volume["persistentVolumeClaim"]["claimName"]
                for volume in template.get("spec", {}).get("volumes", ())
                if "persistentVolumeClaim" in volume
            ]
            if "cert-evidence" in claims:
                assert template["metadata"]["labels"]["cert/evidence"] == "shared"
                (term,) = template["spec"]["affinity"]["podAffinity"][
                    "requiredDuringSchedulingIgnoredDuringExecution"
                ]
                assert term["topologyKey"] == "kubernetes.io/hostname"
                assert term["labelSelector"] == {"matchLabels": {"cert/evidence": "shared"}}


def test_spread_pods_have_claims_of_their_own(rendered: dict[str, Path]) -> None:
    found = {one["kind"]: one for one in documents(rendered["spread"])}
    assert "PersistentVolumeClaim" not in found
    assert "Deployment" not in found
    stateful = found["StatefulSet"]["spec"]
    (claim,) = stateful["volumeClaimTemplates"]
    (container,) = stateful["template"]["spec"]["containers"]
    assert mounts(container)["/var/lib/cert"]["name"] == claim["metadata"]["name"]
    assert stateful["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"


def test_settings_are_settings_and_time_suffices_to_drain(rendered: dict[str, Path]) -> None:
    found = {one["kind"]: one for one in documents(rendered["hamiltonian"])}
    text = found["ConfigMap"]["data"]["cert.yaml"]
    config = CERTConfig(**yaml.safe_load(text))
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause_s + config.drain_timeout + 10
    assert {config.token_file, config.signing_key} <= mounts(container).keys()
    assert Path(config.ledger).is_relative_to("/var/lib/cert")
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"http": config.serve_port, "ops": config.metrics_port}
    CERTConfig(**yaml.safe_load((DEPLOYMENTS / "docker" / "cert.yaml").read_text()))
