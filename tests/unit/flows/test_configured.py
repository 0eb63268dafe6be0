"""What is wrong around a command is said in one line, before anything starts."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

JOBS = "keywords\nred circle\n"


@pytest.mark.parametrize(
    ("environment", "jobs", "complaint"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, JOBS, "PREFECT_API_URL: no Prefect server"),
        ({"PREFECT_API_URL": '"http://127.0.0.1:9/api"'}, JOBS, "PREFECT_API_URL: "),
        ({"PRESSRUN_DEVICE": "cuda"}, JOBS, "PRESSRUN_DEVICE or --devices: 'cuda' needs a GPU"),
        ({"PRESSRUN_HOME": "/proc/pressrun"}, JOBS, "PRESSRUN_HOME: /proc/pressrun cannot be"),
        ({"PRESSRUN_CONCURRENCY": "many"}, JOBS, "PRESSRUN_CONCURRENCY: "),
        ({"PRESSRUN_STORE": "gs://b"}, JOBS, "store must be a folder or s3://"),
        ({}, "keyword\nred circle\n", "did you mean"),
    ],
)
def test_run_reports_a_bad_setting_in_one_line_before_it_starts_anything(
    tmp_path: Path, environment: dict[str, str], jobs: str, complaint: str
) -> None:
    (tmp_path / "jobs.csv").write_text(jobs, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "jobs.csv"],
        cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert complaint in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".pressrun" / "worker.log").exists()


class _Locked(BaseHTTPRequestHandler):
    """Prefect's server, to one who has another password."""

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


@pytest.mark.parametrize(
    ("words", "address", "complaint"),
    [
        (["deploy"], "http://127.0.0.1:9/api", "PREFECT_API_URL: no Prefect server"),
        (["serve"], "", "PREFECT_API_AUTH_STRING: the Prefect server at"),
        (["up", "--devices", "cuda:1"], "", "PRESSRUN_DEVICE or --devices: 'cuda:1' needs"),
        (["worker", "--devices", "gpu"], "", "--devices: 'gpu' is no device"),
    ],
)
def test_commands_that_serve_report_a_bad_setting_in_one_line(
    tmp_path: Path, locked: str, words: list[str], address: str, complaint: str
) -> None:
    environment = {"PREFECT_API_URL": address or locked, "PRESSRUN_REDIS_URL": "redis://h:1"}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
