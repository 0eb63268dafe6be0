"""One managed process: readiness, replacement, and the end of its whole group."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.errors import Unavailable
from workers.processes.lifecycle import Limits
from workers.processes.process import ManagedProcess, ProcessSpec, running

PATIENT = 20.0
SLEEP = "import time; time.sleep(61)"
STUBBORN = f"""
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""


def python(code: str, *words: str) -> list[str]:
    """The command of a small program."""
    return [sys.executable, "-c", code, *words]


def until(met: Callable[[], bool], process: ManagedProcess) -> None:
    """Poll the process until a condition is met."""
    deadline = time.monotonic() + PATIENT
    while not met():
        assert time.monotonic() < deadline
        process.poll()
        time.sleep(0.02)


def test_a_process_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    file = tmp_path / "child"

    def answers() -> bool:
        return file.exists() and bool(file.read_text())

    spec = ProcessSpec("it", python(STUBBORN, str(file)), answers, stop_seconds=0.2)
    with running(spec) as process:
        child = psutil.Process(int(file.read_text()))
        assert process.running
    assert not process.running
    deadline = time.monotonic() + PATIENT
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_end_before_an_answer_is_reported_with_the_end_of_the_log(tmp_path: Path) -> None:
    command = python("print('the port is taken'); raise SystemExit(3)")
    spec = ProcessSpec("redis", command, lambda: False, log=tmp_path / "logs" / "redis.log")
    with pytest.raises(Unavailable, match=r"(?s)redis: .*code 3.*the port is taken"), running(spec):
        pass


def test_a_process_that_never_answers_is_stopped() -> None:
    spec = ProcessSpec("it", python(SLEEP), lambda: False, start_seconds=0.1)
    with pytest.raises(Unavailable, match="no answer"), running(spec):
        pass
    assert not any(SLEEP in child.cmdline() for child in psutil.Process().children())


@pytest.mark.parametrize(("final", "replaced"), [([], True), ([3], False)])
def test_an_ended_process_is_replaced_unless_its_exit_code_is_final(
    monkeypatch: pytest.MonkeyPatch, final: list[int], replaced: bool
) -> None:
    monkeypatch.setattr("workers.processes.lifecycle.FIRST_WAIT", 0.05)
    process = ManagedProcess(ProcessSpec("it", python("raise SystemExit(3)"), final=final))
    process.start()
    until(lambda: not process.running, process)
    time.sleep(0.1)
    process.poll()
    assert process.running is replaced
    assert process.last_code == (0 if replaced else 3)
    process.stop()


def test_a_program_that_is_missing_leaves_no_pipe_open() -> None:
    limits = Limits(hang=1.0, memory=0, grace=0.1)
    process = ManagedProcess(ProcessSpec("it", ["/nowhere/program"], limits=limits))
    before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError):
        process.start()
    assert psutil.Process().num_fds() == before
    assert not process.running
