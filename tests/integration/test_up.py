"""`pressrun up`: a whole stack from one command, used from elsewhere, and gone without a trace."""

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from flows.stack.redis_server import redis_binary
from tests.harness.commandline import answer, begin, pressrun, pressrun_here
from tests.harness.prefect_server import api_client
from tests.harness.servers import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LEAVE_SECONDS = 60
JOBS = "keywords\nred circle on white\nblue square on white\n"
RUN = ("run", "jobs.csv", "--run", "r", "--candidates", "1", "--json")


class Stack:
    """A stack that is up."""

    def __init__(self, process: "subprocess.Popen[str]", workdir: Path) -> None:
        assert process.stdout
        said = process.stdout.readline()
        assert said, process.communicate()
        self.report = json.loads(said)
        self.process, self.workdir = process, workdir
        self.parts = psutil.Process(process.pid).children(recursive=True)
        self.commands = [" ".join(part.cmdline()) for part in self.parts]
        self.file = Path(self.report["environment"])

    @property
    def environment(self) -> dict[str, str]:
        """What a terminal has that has read the stack's file."""
        words = shlex.split(self.file.read_text(encoding="utf-8"), comments=True)
        return dict(word.split("=", 1) for word in words if word != "export")

    def prefect(self) -> httpx.Client:
        """A client of Prefect's API, with the stack's password."""
        user, _, password = self.environment["PREFECT_API_AUTH_STRING"].partition(":")
        return api_client(self.environment["PREFECT_API_URL"], (user, password))

    def left(self) -> list[str]:
        """The parts that stay after the command has ended."""
        _, alive = psutil.wait_procs(self.parts, LEAVE_SECONDS)
        return [" ".join(part.cmdline()) for part in alive]


@contextmanager
def stack(workdir: Path, *words: str, env: dict[str, str] | None = None) -> Iterator[Stack]:
    """`pressrun up` in a folder, killed in the end where it is still there."""
    (workdir / "jobs.csv").write_text(JOBS, encoding="utf-8")
    process = begin("up", "--json", "--devices", "cpu", *words, cwd=workdir, settings=env)
    try:
        yield Stack(process, workdir)
    finally:
        process.kill()
        process.communicate()


def test_a_stack_is_used_from_elsewhere_outlives_a_kill_and_leaves_nothing(tmp_path: Path) -> None:
    inbox, elsewhere = tmp_path / "inbox", tmp_path / "elsewhere"
    inbox.mkdir()
    elsewhere.mkdir()
    with stack(tmp_path, "--s3") as up:
        env = up.environment
        _prefect_is_closed(up)
        jobs = str(tmp_path / "jobs.csv")
        done = answer(pressrun(RUN[0], jobs, *RUN[2:], cwd=elsewhere, settings=env))
        assert done["accepted"] + done["below_gate"] == 2
        assert not (elsewhere / ".pressrun").exists(), "the run has used the stack's services"
        keys = S3Server(
            env["PRESSRUN_S3_ENDPOINT_URL"], env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
        )
        listed = keys.client().list_objects_v2(Bucket="pressrun", Prefix="runs/r/records/")
        assert len(listed["Contents"]) == 2
        runs = up.prefect().post("/flow_runs/filter", json={}).json()
        states = {run["name"]: run["state"]["type"] for run in runs}
        assert states["generate r (2 rows)"] == "COMPLETED"
        assert "<html" in httpx.get(up.report["prefect"], follow_redirects=True).text
        again = pressrun_here("up", cwd=tmp_path, settings=env)
        assert again.returncode == 1
        assert "is up" in again.stderr
        _keeps_its_secrets(up)
        for needed in (
            Path(redis_binary()).name,
            "server start",
            "rclone",
            "workers.worker.main",
            "worker start",
        ):
            assert any(needed in command for command in up.commands), needed
        up.process.kill()
        up.process.wait()
        assert not up.left()
    log = tmp_path / ".pressrun" / "logs" / "worker.log"
    before = len(log.read_text(encoding="utf-8"))
    # from a terminal that still has the old stack's addresses
    env["PRESSRUN_INBOX"] = str(inbox)
    with stack(tmp_path, "--s3", env=env) as up:
        assert up.environment == env
        assert (
            answer(pressrun_here("status", "r", "--json", cwd=tmp_path, settings=env))["rows"] == 2
        )
        _takes_what_is_dropped_and_what_is_scheduled(up)
        _keeps_its_secrets(up)
        up.process.send_signal(signal.SIGTERM)
        _, said = up.process.communicate(timeout=LEAVE_SECONDS)
        assert up.process.returncode == 0
        assert said.splitlines()[-1] == "stopped"
        assert not up.left()
    worker = log.read_text(encoding="utf-8")[before:]
    assert "it was told to stop" in worker
    assert "killed" not in worker


def _prefect_is_closed(up: Stack) -> None:
    """Its API runs commands: nobody reaches it without the password, no foreign page at all."""
    key = up.file.parent / "prefect.key"
    assert up.report["prefect_password"] == f"in {key}"
    assert up.environment["PREFECT_API_AUTH_STRING"] == key.read_text(encoding="utf-8")
    for auth in (None, ("pressrun", "guessed"), ("pressrun", "")):
        refused = up.prefect().post("/deployments/filter", json={}, auth=auth)
        assert refused.status_code == 401
    assert up.prefect().post("/deployments/filter", json={}).status_code == 200
    preflight = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    for asked in (
        up.prefect().options("/deployments/filter", headers=preflight),
        up.prefect().post("/deployments/filter", json={}, headers={"Origin": "null"}),
        up.prefect().get("/health", headers={"Origin": "http://evil.example"}),
    ):
        assert not [name for name in asked.headers if name.startswith("access-control-allow-o")]


def _takes_what_is_dropped_and_what_is_scheduled(up: Stack) -> None:
    """A file in the inbox and a cron schedule each become a run."""
    prefect = up.prefect()
    inbox = up.workdir / "inbox"
    (inbox / "dropped.csv").write_text(JOBS, encoding="utf-8")
    batch = prefect.get("/deployments/name/generate/generate-batch").json()["id"]
    nightly = {
        "schedule": {"cron": "* * * * *", "timezone": "Europe/Berlin"},
        "active": True,
        "parameters": {"run": "nightly", "jobs": str(up.workdir / "jobs.csv")},
    }
    prefect.post(f"/deployments/{batch}/schedules", json=[nightly]).raise_for_status()
    bucket = up.workdir / ".pressrun" / "s3" / "pressrun"
    runs = [bucket / "runs" / run for run in ("dropped", "nightly")]
    _until(lambda: all((run / "summary.json").exists() for run in runs), "the runs to end")
    _until(lambda: list(inbox.glob("done/*dropped*")), "the inbox to be tidied")
    for run in runs:
        assert json.loads((run / "summary.json").read_bytes())["rows"] == 2
    made = prefect.post("/flow_runs/filter", json={}).json()
    by_schedule = {run["name"] for run in made if run["auto_scheduled"]}
    assert "generate nightly (2 rows)" in by_schedule
    assert "generate dropped (2 rows)" in {run["name"] for run in made} - by_schedule


def _until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.5)


def _keeps_its_secrets(up: Stack) -> None:
    """No password where other users of the machine can read it."""
    home = up.file.parent
    secrets = [path.read_text(encoding="utf-8") for path in home.glob("*.key")]
    assert secrets
    said = " ".join(up.commands) + json.dumps(up.report)
    said += "".join(path.read_text(errors="replace") for path in home.glob("logs/*"))
    assert not any(secret in said for secret in secrets)
    for path in [*home.glob("*.key"), home / "redis.conf", up.file]:
        assert path.stat().st_mode & 0o077 == 0, path
