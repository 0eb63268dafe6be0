"""A run whose services refuse and repeat what they are sent, and everything that it wrote."""

import time
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil
import pytest

from tests.harness.canaries import KEYS, OTHERS, SIGNS, canary, leaked
from tests.harness.commandline import LIMIT, begin
from tests.harness.echo_server import refusing_web

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QUICK = 'extends = "shapes"\n[defaults]\ncandidates = 1\nsteps = 4\nrungs = []\n'
PROFILES = {
    "writer": f'{QUICK}[writer]\nkind = "endpoint"\nmodel = "m"\n',
    "judge": f'{QUICK}[[judge]]\nkind = "questions_endpoint"\nmodel = "m"\n',
}


@pytest.mark.parametrize("role", PROFILES)
def test_a_refused_run_ends_with_no_row_booked_and_no_secret_written(
    tmp_path: Path, role: str
) -> None:
    secrets = {name: canary(name, SIGNS["for a header"]) for name in [*KEYS, *OTHERS]}
    hook, user = canary("webhook") + canary("its end"), canary(f"{role}_url")
    settings = {f"PRESSRUN_{name.upper()}": f"{secrets[name]}\n" for name in KEYS}
    settings |= {name: secrets[name] for name in OTHERS if not name.startswith("PREFECT")}
    settings["PREFECT_API_AUTH_STRING"] = f"user:{secrets['PREFECT_API_AUTH_STRING']}"
    rows = "".join(f"red circle {number}\n" for number in range(12))
    (tmp_path / "mine.toml").write_text(PROFILES[role], encoding="utf-8")
    (tmp_path / "jobs.csv").write_text("keywords\n" + rows, encoding="utf-8")
    with refusing_web() as port:
        settings |= {
            "PRESSRUN_PROFILE": "mine.toml",
            f"PRESSRUN_{role.upper()}_URL": f"http://user:{quote(user)}@127.0.0.1:{port}/v1",
            "PRESSRUN_WEBHOOK": f"http://127.0.0.1:{port}/hooks/{hook}",
        }
        words = ("run", "jobs.csv", "--run", "r")
        process = begin(*words, cwd=tmp_path, settings=settings)
        try:
            _prefect_asks_for_a_password(psutil.Process(process.pid))
            output, complaints = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "refused (401)" in complaints.strip().splitlines()[-1]
    assert not list(tmp_path.rglob("records/**/*.json")), "a wrong key books no row"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"prefect.db", "worker.log"} <= {path.name for path in written}
    said = output + complaints
    said += "".join(path.read_bytes().decode(errors="replace") for path in written)
    assert "Refused: /v1/chat/completions" in said, "the server's words are told"
    assert not leaked([*secrets.values(), hook, user], said)


def _prefect_asks_for_a_password(run: psutil.Process) -> None:
    deadline = time.monotonic() + LIMIT
    while not (api := _api(run)):
        assert time.monotonic() < deadline, "no server of Prefect's answers"
        assert run.status() != psutil.STATUS_ZOMBIE, "the run has ended"
        time.sleep(0.2)
    asked = {"json": {}, "headers": {"Origin": "http://evil.example"}}
    for auth in (None, ("user", "guessed")):
        answer = httpx.post(f"{api}/flow_runs/filter", auth=auth, **asked)  # type: ignore[arg-type]
        assert answer.status_code == 401
        assert "access-control-allow-origin" not in answer.headers


def _api(run: psutil.Process) -> str:
    """Where a server of Prefect's that the run has started answers."""
    for child in run.children(recursive=True):
        try:
            doors = [door.laddr.port for door in child.net_connections() if door.status == "LISTEN"]
        except psutil.Error:
            continue
        for port in doors:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=2).status_code == 200:
                    return f"http://127.0.0.1:{port}/api"
            except httpx.HTTPError:
                continue
    return ""
