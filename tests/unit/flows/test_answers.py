"""How commands end."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.output import UNSOUND, exit_code
from pipeline.record import Status

STUCK = """
import time
from flows.cli.output import interruptible
with interruptible("It goes on with: this"):
    try:
        print("here", flush=True)
        time.sleep(60)
    finally:
        print("leaving", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_a_command_at_once_and_it_says_its_line(
    number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    for line in ("here\n", "leaving\n"):
        assert process.stdout.readline() == line
        process.send_signal(number)
    _, said = process.communicate(timeout=50)
    assert (process.returncode, said) == (code, "It goes on with: this\n")


@pytest.mark.parametrize(
    ("counts", "fail_on", "code"),
    [
        ({}, [], 0),
        ({"invalid": 1}, [], 0),
        ({"invalid": 4}, [], 3),
        ({"failed": 1}, [], 3),
        ({"below_gate": 4}, [], 0),
        ({"invalid": 1}, [Status.INVALID], 5),
        ({"below_gate": 1, "failed": 1}, [Status.BLOCKED, Status.BELOW_GATE], 5),
        ({"accepted": 4}, [Status.INVALID, Status.BELOW_GATE], 0),
        ({"stopped": "by its budget", "invalid": 1}, [Status.INVALID], 4),
        ({"stopped": "by its budget", "quota": 3, "quota_met": False, "accepted": 4}, [], 4),
        ({"stopped": "by its quota", "quota": 3, "quota_met": True, "accepted": 3}, [], 0),
        ({"stopped": "by its quota", "quota": 3, "quota_met": True, "failed": 1}, [], 3),
    ],
)
def test_the_exit_code_tells_how_the_rows_ended(
    counts: dict[str, Any], fail_on: list[Status], code: int
) -> None:
    none = dict.fromkeys(map(str, Status), 0)
    assert exit_code({"rows": 4, **none, **counts}, fail_on) == code


@pytest.mark.parametrize(
    ("rows", "options", "code"),
    [
        ("circle,x\nring,y\n", [], 3),
        ("circle,x\nring,2\n", [], 0),
        ("circle,x\nring,2\n", ["--fail-on", "invalid"], 5),
        ("circle,x\nring,2\n", ["--fail-on", "nonsense"], 1),
    ],
)
def test_check_ends_with_the_code_of_its_rows(
    rows: str, options: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSRUN_STORE", str(tmp_path / "out"))
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(f"keywords,steps\n{rows}", encoding="utf-8")
    assert CliRunner().invoke(app, ["check", str(jobs), *options]).exit_code == code


@pytest.mark.parametrize("found", [{"lost": 1}, {"unexpected": 1}])
def test_a_run_whose_books_do_not_balance_never_ends_with_0(found: dict[str, int]) -> None:
    summary = {"rows": 2, "invalid": 0, "failed": 0, "lost": 0, "unexpected": 0}
    assert exit_code(summary, ()) == 0
    assert exit_code(summary | found, ()) == UNSOUND
