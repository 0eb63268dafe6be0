"""Kubernetes' objects: rendered as `kubectl apply -k` would, and held against its schemas."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flows.dispatch.window import window_for
from tests.harness.deployed import ROOT, is_command, settings_named
from workers.processes.supervisor import KILL_AFTER
from workers.queue.celery_app import PRIORITIES, UNACKNOWLEDGED, list_of

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
VERSION = "1.32"
SECRETS = {  # of the Secret `pressrun`, as docs/deployment.md makes it
    "pressrun_redis_url", "pressrun_qdrant_api_key", "s3_credentials", "redis_address",
    "redis_password", "prefect_api_auth_string",
}  # fmt: skip

# what renders the overlays; no package of Python's brings it
pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
each_overlay = pytest.mark.parametrize("name", OVERLAYS)


@cache
def rendered(folder: Path) -> dict[str, dict[str, Any]]:
    """The objects of a kustomization, by kind; each kind is there once."""
    words = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    objects = list(yaml.safe_load_all(done.stdout))
    found = {each["kind"]: each for each in objects}
    assert len(found) == len(objects)
    return found


def overlay(name: str) -> dict[str, dict[str, Any]]:
    """The objects of one GPU type."""
    return rendered(FOLDER / "overlays" / name)


def folders() -> list[Path]:
    """Everything that is applied."""
    return [FOLDER / "flows", *(FOLDER / "overlays" / name for name in OVERLAYS)]


def containers(objects: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """All containers of a Deployment."""
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("folder", folders(), ids=lambda path: path.name)
def test_each_object_is_as_its_schema_says(folder: Path) -> None:
    objects = rendered(folder)
    assert "Deployment" in objects
    for kind, each in objects.items():
        if not each["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(each, VERSION, strict=True)
        assert each["metadata"]["namespace"] == "pressrun", kind


def test_a_schema_finds_a_misspelt_field() -> None:
    wrong = overlay(OVERLAYS[0])["Deployment"] | {"spek": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@pytest.mark.parametrize("folder", folders(), ids=lambda path: path.name)
def test_variables_are_settings_and_commands_are_commands(folder: Path) -> None:
    objects = rendered(folder)
    assert settings_named(yaml.safe_dump(objects["ConfigMap"]["data"])) == set()
    for container in containers(objects):
        assert is_command(container["args"])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container:
                program, *words = container[probe]["exec"]["command"]
                assert program == "pressrun"
                assert is_command(words)


@pytest.mark.parametrize("folder", folders(), ids=lambda path: path.name)
def test_containers_have_no_more_rights_than_they_need(folder: Path) -> None:
    objects = rendered(folder)
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in containers(objects):
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert container["image"] == "pressrun:0.1.0"
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("folder", folders(), ids=lambda path: path.name)
def test_secrets_are_named_and_never_there(folder: Path) -> None:
    objects = rendered(folder)
    assert "Secret" not in objects
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert secret["secretName"] == "pressrun"
    assert {item["key"] for item in secret["items"]} <= SECRETS


@each_overlay
def test_a_worker_has_longer_to_leave_than_it_needs(name: str) -> None:
    objects = overlay(name)
    grace = float(objects["ConfigMap"]["data"]["PRESSRUN_GRACE_SECONDS"])
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= grace + KILL_AFTER + 10


@each_overlay
def test_a_gpu_is_asked_for_by_its_type(name: str) -> None:
    pod = overlay(name)["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert name.upper() in pod["nodeSelector"]["nvidia.com/gpu.product"]


@each_overlay
def test_the_scaler_watches_every_list_and_what_is_in_hand(name: str) -> None:
    objects = overlay(name)
    scaled = objects["ScaledObject"]["spec"]
    lists = [trigger["metadata"]["listName"] for trigger in scaled["triggers"]]
    assert lists == [*map(list_of, range(PRIORITIES)), UNACKNOWLEDGED]
    concurrency = objects["ConfigMap"]["data"]["PRESSRUN_CONCURRENCY"]
    for trigger in scaled["triggers"]:
        assert trigger["type"] == "redis"
        assert trigger["metadata"]["listLength"] == concurrency
        auth = trigger["authenticationRef"]["name"]
        assert auth == objects["TriggerAuthentication"]["metadata"]["name"]
    assert scaled["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    assert "replicas" not in objects["Deployment"]["spec"], "the scaler decides"
    keys = objects["TriggerAuthentication"]["spec"]["secretTargetRef"]
    assert {key["key"] for key in keys} <= SECRETS


@each_overlay
def test_budget_and_network_hold_for_these_workers(name: str) -> None:
    objects = overlay(name)
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        chosen = objects[kind]["spec"][field]["matchLabels"]
        assert chosen.items() <= labels.items()
        assert chosen["app.kubernetes.io/instance"] == name


def ports(policy: dict[str, Any]) -> set[int]:
    """The ports to which a policy lets out."""
    return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}


@pytest.mark.parametrize("folder", folders(), ids=lambda path: path.name)
def test_pods_reach_the_services_and_nobody_reaches_them(folder: Path) -> None:
    objects = rendered(folder)
    policy = objects["NetworkPolicy"]["spec"]
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    addresses = "\n".join(objects["ConfigMap"]["data"].values())
    named = {int(port) for port in re.findall(r"://[^/\s]+:(\d+)", addresses)}
    assert named | {53, 443, 6379} <= ports(objects["NetworkPolicy"])
    for rule in policy.get("ingress", []):
        assert rule["from"], "figures are for the monitoring namespace alone"
        assert [port["port"] for port in rule["ports"]] == [9464]
    assert ("ingress" in policy) == (folder.name != "flows")
    # plain HTTP to one address of the machine's own, never to anywhere
    plain = [rule for rule in policy["egress"] if any(port["port"] == 80 for port in rule["ports"])]
    assert [rule["to"] for rule in plain] == [[{"ipBlock": {"cidr": "169.254.170.23/32"}}]]


@each_overlay
def test_prometheus_finds_workers_under_the_name_that_alerts_ask_for(name: str) -> None:
    monitor = rendered(FOLDER / "monitoring")["PodMonitor"]
    assert monitor["metadata"]["namespace"] == "pressrun"
    pod = overlay(name)["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    named = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    assert (
        str(named[endpoint["port"]]) == overlay(name)["ConfigMap"]["data"]["PRESSRUN_METRICS_PORT"]
    )
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    assert labels[monitor["spec"]["jobLabel"]] in re.findall(r'job="([^"]+)"', alerts)


def test_flows_wait_for_a_fleet_that_is_called_for_from_nothing() -> None:
    settings = rendered(FOLDER / "flows")["ConfigMap"]["data"]
    assert float(settings["PRESSRUN_WORKER_WAIT_SECONDS"]) >= 600
    assert "PRESSRUN_WINDOW" not in settings
    for name in OVERLAYS:
        objects = overlay(name)
        most = objects["ScaledObject"]["spec"]["maxReplicaCount"]
        concurrency = int(objects["ConfigMap"]["data"]["PRESSRUN_CONCURRENCY"])
        assert window_for(0) >= most * concurrency
