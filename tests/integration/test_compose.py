"""docker-compose.yml's services at work, as far as their programs are on this machine: a run of two
rows through Redis, S3, Prefect on Postgres, a flow runner and a worker.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.stack.processes import program
from tests.harness.containers import Engine, engine
from tests.harness.two_hosts import NoNamespaces

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
LIMIT = 240.0
# its image is not here, and no other server of its kind
WITHOUT_QDRANT = {"PRESSRUN_QDRANT_URL": "", "PRESSRUN_METRICS_PORT": "0"}


@pytest.fixture(scope="module")
def services() -> Iterator[Engine]:
    """Everything that a run needs, healthy."""
    programs = ("rclone", "redis-server", "redis-cli")
    if os.geteuid() or not all(map(program, programs)) or not POSTGRES:
        pytest.skip("needs root, rclone, Redis with its redis-cli, and PostgreSQL")
    try:
        # not pytest's own folder, which the user postgres may not enter
        with (
            tempfile.TemporaryDirectory(prefix="pressrun-") as folder,
            engine(Path(folder)) as found,
        ):
            found.workdir.chmod(0o755)
            for name in ("redis", "s3"):
                found.start(name)
            _postgres(found)
            found.start("prefect")
            for name in ("redis", "prefect"):
                _await(lambda name=name: found.check(name))
            found.run("deploy", env=WITHOUT_QDRANT)
            found.start("flows", env=WITHOUT_QDRANT)
            found.start("worker-cpu", env=WITHOUT_QDRANT)
            _await(lambda: found.check("worker-cpu"))
            yield found
    except NoNamespaces as error:
        pytest.skip(f"no network namespaces here: {error}")


def test_a_run_goes_through_the_services(services: Engine) -> None:
    (services.workdir / "volumes" / "flows" / "jobs.csv").write_text("keywords\nred circle\n")
    words = ("run", "/state/jobs.csv", "--run", "r", "--candidates", "1", "--json")
    said = services.run("cli", *words, env=WITHOUT_QDRANT)
    summary = json.loads(said.splitlines()[-1])
    assert summary["accepted"] + summary["below_gate"] == 1
    records = services.workdir / "volumes" / "store" / "pressrun" / "runs" / "r" / "records"
    assert len(list(records.iterdir())) == 1


def test_redis_keeps_its_data_and_asks_for_the_password(services: Engine) -> None:
    assert any((services.workdir / "volumes" / "redis").rglob("*.aof"))
    asked = ["redis-cli", "-h", "redis", "ping"]
    plain = services.ask("cli", asked)
    assert "NOAUTH" in plain


def test_prefect_asks_for_its_password_and_answers_no_foreign_page(services: Engine) -> None:
    asked = ["curl", "-si", "-X", "POST", "-H", "Origin: http://evil.example"]
    asked += ["-H", "Content-Type: application/json", "-d", "{}"]
    address = "http://prefect:4200/api/deployments/filter"
    shut = services.ask("cli", [*asked, address])
    assert " 401 " in shut.splitlines()[0]
    assert "access-control" not in shut.lower()
    password = (services.workdir / "secrets" / "prefect_api_auth_string").read_text().strip()
    open_ = services.ask("cli", [*asked, "-u", password, address])
    assert " 200 " in open_.splitlines()[0]
    assert "generate-batch" in open_


def test_no_secret_is_in_a_command_line_or_a_log(services: Engine) -> None:
    secrets = (services.workdir / "secrets").iterdir()
    words = {line.split()[-1] for path in secrets for line in path.read_text().splitlines()}
    hidden = {word for word in words if len(word) > 30}
    assert len(hidden) == 7
    pids = subprocess.check_output(["ip", "netns", "pids", services.host.name], text=True).split()
    said = "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)
    said += "".join(log.read_text(errors="replace") for log in services.workdir.glob("*.log"))
    assert not [word for word in hidden if word in said]


def test_a_worker_stops_in_the_time_that_it_has(services: Engine) -> None:
    worker = services.started["worker-cpu"]
    worker.send_signal(signal.SIGTERM)
    limit = int(services.services["worker-cpu"]["stop_grace_period"].rstrip("s"))
    assert worker.wait(limit) == 0


def _postgres(found: Engine) -> None:
    """PostgreSQL as the image's own script sets it up, with the service's health check."""
    data, binaries = found.workdir / "postgres", POSTGRES[-1]
    data.mkdir()
    shutil.chown(data, "postgres")
    secret = found.workdir / "secrets" / "postgres_password"
    (found.workdir / "secrets").chmod(0o755)
    service = found.services["postgres"]["environment"]
    assert service["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postgres_password"
    user, database = service["POSTGRES_USER"], service["POSTGRES_DB"]
    become = ["runuser", "-u", "postgres", "--"]
    subprocess.run(
        [*become, binaries / "initdb", "--pgdata", data, "--username", user, "--pwfile", secret,
         "--auth", "scram-sha-256"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    options = ["-D", str(data), "-k", str(data), "-h", "127.0.0.1"]
    found.host.start(*become, str(binaries / "postgres"), *options, log="postgres.log")
    _await(lambda: found.check("postgres"))
    subprocess.run(
        ["ip", "netns", "exec", found.host.name, binaries / "createdb", "--host", "127.0.0.1",
         "--username", user, database],
        check=True, env=os.environ | {"PGPASSWORD": secret.read_text().strip()},
    )  # fmt: skip


def _await(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            if look() is not False:
                return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.5)
