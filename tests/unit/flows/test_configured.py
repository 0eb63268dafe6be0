"""What is wrong around a command is said in one line, before anything starts."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.harness.commandline import pressrun, pressrun_here

pytestmark = pytest.mark.slow

JOBS = "keywords\nred circle\n"
NOBODY = "http://127.0.0.1:9/api"


class _Answers(BaseHTTPRequestHandler):
    """A server that answers with the status in the first part of its address."""

    def do_GET(self) -> None:
        self.send_error(int(self.path.split("/")[1]))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("environment", "jobs", "complaint"),
    [
        ({"PREFECT_API_URL": NOBODY}, JOBS, "PREFECT_API_URL: no Prefect server"),
        ({"PREFECT_API_URL": f'"{NOBODY}"'}, JOBS, "PREFECT_API_URL: "),
        ({"PREFECT_API_URL": "{server}/503/api"}, JOBS, "/503/api answers 503; try again"),
        ({"PREFECT_API_URL": "{server}/404/api"}, JOBS, "/404/api is not the address of Prefect"),
        ({"PRESSRUN_DEVICE": "cuda"}, JOBS, "PRESSRUN_DEVICE or --devices: 'cuda' needs a GPU"),
        ({"PRESSRUN_HOME": "/proc/pressrun"}, JOBS, "PRESSRUN_HOME: /proc/pressrun cannot be"),
        ({"PRESSRUN_CONCURRENCY": "many"}, JOBS, "PRESSRUN_CONCURRENCY: "),
        ({"PRESSRUN_STORE": "gs://b"}, JOBS, "store must be a folder or s3://"),
        ({}, "keyword\nred circle\n", "did you mean"),
    ],
)
def test_run_reports_a_bad_setting_in_one_line_before_it_starts_anything(
    tmp_path: Path, server: str, environment: dict[str, str], jobs: str, complaint: str
) -> None:
    (tmp_path / "jobs.csv").write_text(jobs, encoding="utf-8")
    settings = {name: value.replace("{server}", server) for name, value in environment.items()}
    done = pressrun_here("run", "jobs.csv", cwd=tmp_path, settings=settings)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert complaint in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".pressrun" / "worker.log").exists()


@pytest.mark.parametrize(
    ("words", "address", "complaint"),
    [
        (["deploy"], NOBODY, "PREFECT_API_URL: no Prefect server"),
        (["serve"], "{server}/401/api", "PREFECT_API_AUTH_STRING: the Prefect server at"),
        (["up", "--devices", "cuda:1"], NOBODY, "PRESSRUN_DEVICE or --devices: 'cuda:1' needs"),
        (["worker", "--devices", "gpu"], NOBODY, "--devices: 'gpu' is no device"),
    ],
)
def test_commands_that_serve_report_a_bad_setting_in_one_line(
    tmp_path: Path, server: str, words: list[str], address: str, complaint: str
) -> None:
    settings = {
        "PREFECT_API_URL": address.replace("{server}", server),
        "PRESSRUN_REDIS_URL": "redis://h:1",
    }
    done = pressrun(*words, cwd=tmp_path, settings=settings)
    assert done.returncode == 1
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
