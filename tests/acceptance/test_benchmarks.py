"""The benchmarks of the machinery still run, and their books balance; their figures are no test."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def measured(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", *words, "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def test_orchestration_is_measured() -> None:
    figures = measured("benchmarks.orchestration", "--rows", "200")
    assert 1 <= figures["task_runs"] <= 3
    asked = {"jobs_per_s", "ratio_to_bare", "flow_memory_growth", "worker_memory_growth"}
    assert asked | {"redis_peak_mb", "resubmit_ratio"} <= figures.keys()


@pytest.mark.timeout(600)
def test_killed_workers_lose_no_job() -> None:
    figures = measured("benchmarks.chaos", "--jobs", "1500")
    assert figures["kills"]
    assert figures["executions"] >= 1500
    assert figures["accepted"] + figures["failed"] == 1500
    assert (figures["lost"], figures["unexpected"]) == (0, 0)
