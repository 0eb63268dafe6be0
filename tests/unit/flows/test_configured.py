"""What is wrong around a command is said in one line, before anything starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = "keywords\nred circle\n"


@pytest.mark.parametrize(
    ("environment", "jobs", "complaint"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, JOBS, "PREFECT_API_URL: no Prefect server"),
        ({"PREFECT_API_URL": '"http://127.0.0.1:9/api"'}, JOBS, "PREFECT_API_URL: "),
        ({"PRESSRUN_DEVICE": "cuda"}, JOBS, "PRESSRUN_DEVICE: 'cuda' needs a GPU"),
        ({"PRESSRUN_HOME": "/proc/pressrun"}, JOBS, "PRESSRUN_HOME: /proc/pressrun cannot be"),
        ({"PRESSRUN_CONCURRENCY": "many"}, JOBS, "PRESSRUN_CONCURRENCY: "),
        ({"PRESSRUN_STORE": "gs://b"}, JOBS, "store must be a folder or s3://"),
        ({}, "keyword\nred circle\n", "did you mean"),
    ],
)
def test_it_is_one_line(
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
