"""The supervisor over processes that hang, grow, die and refuse to leave."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from workers.processes import supervisor
from workers.processes.heartbeat import Heartbeat
from workers.processes.lifecycle import (
    LONGEST_WAIT,
    MAX_BROKER_SILENCE,
    STEADY,
    Backoff,
    Exit,
    Limits,
    describe,
)
from workers.processes.supervisor import Supervisor

pytestmark = pytest.mark.slow

STAND_IN = Path(__file__).parent / "stand_in.py"
PATIENT = 60.0
"""A limit for waits that take well below a second on an idle machine."""
LIMITS = Limits(hang=1.0, memory=0, grace=0.5)


class Watched:
    """A supervisor in a thread, and its log."""

    def __init__(self, said: list[EventDict], mode: str, limits: Limits = LIMITS) -> None:
        command = [sys.executable, str(STAND_IN), mode]
        self.said, self.code = said, -1
        self.supervisor = Supervisor(["cpu"], limits, command=command)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def saw(self, event: str, times: int = 1) -> list[EventDict]:
        """The entries of the log with this event, once there are so many."""
        deadline = time.monotonic() + PATIENT
        while time.monotonic() < deadline:
            found = [entry for entry in self.said if entry["event"] == event]
            if len(found) >= times:
                return found
            time.sleep(0.02)
        raise AssertionError(f"no {times} × {event!r} in {self.said}")

    def wait_for_work(self) -> None:
        """Return once the worker has said that it works."""
        deadline = time.monotonic() + PATIENT
        while not self.supervisor.workers[0].heartbeat.in_flight:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self, times: int = 1) -> int:
        """Call `stop` this many times, and return the exit code."""
        for _ in range(times):
            self.supervisor.stop()
        self._thread.join(PATIENT)
        assert not self._thread.is_alive()
        return self.code

    def _run(self) -> None:
        self.code = self.supervisor.run()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watched]]:
    """Start supervisors with short waits; kill those still running at the end."""
    monkeypatch.setattr(supervisor, "KILL_AFTER", 0.5)
    monkeypatch.setattr(supervisor, "POLL_SECONDS", 0.02)
    monkeypatch.setattr("workers.processes.lifecycle.FIRST_WAIT", 0.1)
    made = list[Watched]()
    with capture_logs() as said:

        def start(mode: str, limits: Limits = LIMITS) -> Watched:
            made.append(Watched(said, mode, limits))
            return made[-1]

        yield start
        for watched in made:
            watched.stop(2)


def alive(pid: int) -> bool:
    """True while the process exists, also as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_works_is_left_alone(watch: Callable[..., Watched]) -> None:
    watched = watch("works")
    watched.saw("worker started")
    time.sleep(2 * LIMITS.hang)
    assert watched.stop() == 0
    assert [entry["event"] for entry in watched.said] == ["worker started", "worker ended"]
    assert watched.said[-1]["reason"] == "it was told to stop"


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("hangs", r"no step for \d+ s, jobs in flight: 2"), ("silent", r"no sign of life for \d+ s")],
)
def test_a_worker_that_hangs_is_killed_and_replaced(
    watch: Callable[..., Watched], mode: str, reason: str
) -> None:
    watched = watch(mode)
    killed, first, second = (
        *watched.saw("worker killed")[:1],
        *watched.saw("worker started", 2)[:2],
    )
    assert killed["pid"] == first["pid"]
    assert re.fullmatch(reason, killed["reason"])
    assert not alive(first["pid"])
    assert alive(second["pid"])


def test_a_worker_that_grows_is_told_to_leave_and_replaced(watch: Callable[..., Watched]) -> None:
    watched = watch("grows", Limits(hang=5.0, memory=40 * 2**20, grace=5.0))
    told = watched.saw("worker told to leave")[0]
    assert told["reason"].startswith("its memory has grown to ")
    watched.saw("worker started", 2)
    assert watched.saw("worker ended")[0]["reason"] == "it was told to stop"


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("dies", "SIGKILL ended it"), ("ill", "it is unhealthy: the disk is full")],
)
def test_a_worker_that_ends_by_itself_is_replaced_after_growing_delays(
    watch: Callable[..., Watched], mode: str, reason: str
) -> None:
    watched = watch(mode)
    waits = [entry["seconds"] for entry in watched.saw("another worker follows", 3)]
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert watched.saw("worker ended")[0]["reason"] == reason
    assert watched.stop() == 0


def test_a_misconfigured_worker_is_not_restarted(watch: Callable[..., Watched]) -> None:
    watched = watch("misconfigured")
    assert watched.stop(0) == 1
    assert len(watched.saw("worker started")) == 1


def test_a_worker_that_does_not_leave_is_killed_after_the_grace_period(
    watch: Callable[..., Watched],
) -> None:
    watched = watch("stubborn")
    watched.wait_for_work()
    start = time.monotonic()
    assert watched.stop() == 1
    assert time.monotonic() - start >= LIMITS.grace + supervisor.KILL_AFTER
    assert watched.saw("worker killed")[0]["reason"] == "it was told to leave and has not"


def test_a_second_signal_ends_the_worker_at_once(watch: Callable[..., Watched]) -> None:
    watched = watch("stubborn", Limits(hang=60.0, memory=0, grace=60.0))
    watched.wait_for_work()
    assert watched.stop(2) == 1
    assert watched.saw("worker killed")[0]["reason"] == "a second signal"


ALONE = f"""
import os, sys
from workers.processes.supervisor import Limits, Supervisor
limits = Limits(hang=60.0, memory=0, grace=60.0)
parent = os.getppid() if "--parent" in sys.argv else None
command = [sys.executable, {str(STAND_IN)!r}, "works"]
Supervisor(["cpu"], limits, command=command, parent=parent).run()
"""
WITH_PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {ALONE!r}, "--parent"])
"""


@pytest.mark.parametrize("code", [ALONE, WITH_PARENT], ids=["supervisor", "its parent"])
def test_a_worker_ends_when_the_supervisor_or_its_parent_is_killed(code: str) -> None:
    above = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert above.stdout
    started = above.stdout.readline()
    found = re.search(r"pid=\D*(\d+)", re.sub(r"\x1b\[\d*m", "", started))
    assert found, started
    worker = int(found[1])
    assert alive(worker)
    above.kill()
    above.wait()
    deadline = time.monotonic() + PATIENT
    while alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_supervisor_imports_no_heavy_library() -> None:
    code = "import sys, workers.processes.supervisor, workers.worker.devices; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "celery", "redis", "pyarrow"} & set(done.stdout.split())


def test_restart_delays_double_to_a_minute_and_reset_after_a_long_life() -> None:
    backoff = Backoff()
    assert [backoff.after(5) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, LONGEST_WAIT]
    assert backoff.after(STEADY) == 1
    assert backoff.after(5) == 2


def test_only_work_in_flight_can_hang() -> None:
    limits = Limits(hang=10, memory=0, grace=1)
    assert not limits.hang_of(Heartbeat(0, 100), silence=9)
    assert not limits.hang_of(Heartbeat(1, 9), silence=9)
    assert limits.hang_of(Heartbeat(1, 11), silence=0)
    assert limits.hang_of(Heartbeat(0, 0), silence=11)
    assert not limits.hang_of(Heartbeat(0, 0, MAX_BROKER_SILENCE - 1), silence=0)
    assert "broker" in limits.hang_of(Heartbeat(0, 0, MAX_BROKER_SILENCE + 1), silence=0)


def test_memory_is_limited_only_if_a_limit_is_set() -> None:
    assert not Limits(hang=1, memory=0, grace=1).growth_of(1 << 40)
    assert not Limits(hang=1, memory=100, grace=1).growth_of(100)
    assert Limits(hang=1, memory=100, grace=1).growth_of(101)


@pytest.mark.parametrize(
    ("code", "words"),
    [(Exit.HANDED_BACK, "handed back"), (3, "exit code 3"), (-signal.SIGSEGV, "SIGSEGV"),
     (-99, "signal 99")],
)  # fmt: skip
def test_every_exit_status_has_words(code: int, words: str) -> None:
    assert words in describe(code)


def test_a_worker_gets_memory_saving_variables_unless_the_environment_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spared, chosen = supervisor.SPARING
    monkeypatch.delenv(spared, raising=False)
    monkeypatch.setenv(chosen, "7")
    code = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    found = tmp_path / "environment"
    crew = Supervisor(["cpu"], LIMITS, command=[sys.executable, "-c", code, str(found)])
    (worker,) = crew.workers
    worker.start()
    deadline = time.monotonic() + PATIENT
    while worker.running:
        assert time.monotonic() < deadline
        worker.poll()
        time.sleep(0.02)
    environment = json.loads(found.read_text())
    assert environment[spared] == supervisor.SPARING[spared]
    assert environment[chosen] == "7"


def test_each_worker_has_a_port_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os, sys; open(os.path.join(sys.argv[1], os.environ['PRESSRUN_METRICS_PORT']), 'w')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    crew = Supervisor(["cuda:0", "cuda:1", "cuda:2"], LIMITS, command=command, port=9464)
    thread = threading.Thread(target=crew.run)
    thread.start()
    deadline = time.monotonic() + PATIENT
    while len(list(tmp_path.iterdir())) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    crew.stop()
    thread.join(PATIENT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["9464", "9465", "9466"]
