"""Runs that a person at a terminal, or systemd, ends: the whole process group gets the signal."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import psutil
import pytest

from tests.harness import prefect_database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROWS = "".join(f"red circle number {n}\n" for n in range(400))
RESUME = "pressrun resume jobs"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    (folder / "jobs.csv").write_text(f"keywords\n{ROWS}", encoding="utf-8")
    prefect_database.provide(folder / ".pressrun" / "prefect")
    return folder


def ctrl_c(run: pexpect.spawn) -> None:
    run.sendintr()


def ctrl_c_without_redis(run: pexpect.spawn) -> None:
    for child in psutil.Process(run.pid).children():
        if "redis" in child.name():
            child.suspend()
    time.sleep(1)
    run.sendintr()


def end_group(run: pexpect.spawn) -> None:
    os.killpg(run.pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ("end", "code", "private"),
    # a Prefect server of its own is stopped in the same way in all three
    [(ctrl_c, 130, True), (end_group, 143, False), (ctrl_c_without_redis, 130, False)],
    ids=["ctrl-c", "sigterm", "ctrl-c-while-redis-hangs"],
)
def test_a_signal_to_the_group_ends_a_run_in_seconds_with_one_line(
    workdir: Path,
    prefect_server: str,
    end: Callable[[pexpect.spawn], None],
    code: int,
    private: bool,
) -> None:
    words = ["-m", "flows.cli", "run", "jobs.csv", "--candidates", "1"]
    shared = {} if private else {"PREFECT_API_URL": prefect_server}
    run = pexpect.spawn(
        sys.executable, words, cwd=workdir, env=os.environ | shared, encoding="utf-8",
        dimensions=(24, 200),
    )  # fmt: skip
    run.expect("accepted [1-9]", timeout=600)
    end(run)
    begun = time.monotonic()
    run.expect(pexpect.EOF, timeout=120)
    run.close()
    assert time.monotonic() - begun < 30
    assert run.exitstatus == code
    assert run.before
    assert run.before.count(RESUME) == 1
    assert run.before.strip().endswith(f"`pressrun gallery jobs` shows it, `{RESUME}` goes on.")
    assert "Traceback" not in run.before
