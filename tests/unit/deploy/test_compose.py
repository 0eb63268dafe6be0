"""docker-compose.yml and the image, as far as they can be tried without an engine."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import Settings
from tests.harness.deployed import ROOT, compose, is_command, settings_named

FILE = compose()
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
each_service = pytest.mark.parametrize("name", SERVICES)


def seconds(text: str) -> int:
    """A duration such as 45s or 2m."""
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def test_it_is_of_the_compose_specification() -> None:
    words = ["--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(
        [BIN / "check-jsonschema", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@each_service
def test_images_are_pinned_to_one_version(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.search(r":v?\d+\.\d+", image), image


@each_service
def test_nothing_is_published_beyond_this_machine(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:")
    assert "network_mode" not in SERVICES[name]


@each_service
def test_a_service_is_watched_restarted_and_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert "test" in service.get("healthcheck", {}) or service["healthcheck"] == {"disable": True}
    assert "restart" in service
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]
    assert "no-new-privileges:true" in service["security_opt"]


@each_service
def test_what_is_waited_for_is_there_and_says_when_it_is_ready(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "test" in SERVICES[other]["healthcheck"]


@each_service
def test_secrets_and_volumes_are_declared(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("secrets", [])) <= set(FILE["secrets"])
    for volume in service.get("volumes", []):
        source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in FILE["volumes"]


def test_no_secret_is_in_an_environment() -> None:
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            secret = re.search("PASSWORD|SECRET|_KEY|TOKEN|REDIS_URL", variable)
            assert not secret or str(value).startswith("/run/secrets/"), variable


def test_variables_are_settings_and_commands_are_commands() -> None:
    assert settings_named(TEXT) == set()
    for name in FILE["secrets"]:
        assert not name.startswith("pressrun_") or name.removeprefix("pressrun_") in (
            Settings.model_fields
        )
    ours = [s for s in SERVICES.values() if s["image"].startswith("pressrun:")]
    assert len(ours) > 4
    for service in ours:
        if "entrypoint" not in service and "command" in service:
            assert is_command(service["command"]), service["command"]
        test = service["healthcheck"].get("test", [])
        if "pressrun" in test:
            assert is_command(test[2:])


def test_workers_have_longer_to_stop_than_they_need() -> None:
    for name in ("worker", "worker-cpu"):
        grace = int(SERVICES[name]["environment"]["PRESSRUN_GRACE_SECONDS"])
        assert seconds(SERVICES[name]["stop_grace_period"]) >= grace + 10


def test_the_example_names_every_variable_and_no_other() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?([A-Z0-9_]+)=", example, re.MULTILINE))
    used = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", TEXT))
    assert named - {"COMPOSE_PROFILES"} == used
    chosen = re.search(r"^COMPOSE_PROFILES=(\w+)$", example, re.MULTILINE)
    assert chosen
    assert chosen[1] in SERVICES["worker"]["profiles"]


def test_the_script_makes_every_secret_once_and_for_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    script = ROOT / "deploy" / "compose" / "secrets.sh"
    subprocess.run([script, folder], check=True)
    made = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert set(made) == set(FILE["secrets"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert made["redis_password"].strip() in made["pressrun_redis_url"]
    subprocess.run([script, folder], check=True)
    assert made == {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_the_dockerfile_is_clean_and_takes_what_there_is() -> None:
    dockerfile = ROOT / "deploy" / "Dockerfile"
    hadolint = shutil.which("hadolint", path=f"{BIN}:/usr/bin")
    assert hadolint
    done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    text = dockerfile.read_text(encoding="utf-8")
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    last = text[text.rindex("\nFROM ") :]
    assert "USER 10001" in last
    assert not re.search(r"\b(pip|uv|apt-get)\b", last), "tools for building in the last stage"
