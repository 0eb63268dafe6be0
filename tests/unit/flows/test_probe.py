"""A probe of a real supervisor, through the command line."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.stack import doctor
from pipeline.settings import load_settings
from tests.harness.commandline import answer, pressrun_here
from workers.processes.heartbeat import HeartbeatFile

pytestmark = pytest.mark.slow

STAND_IN = Path(__file__).parents[1] / "workers" / "stand_in.py"
SUPERVISE = """
import sys
from pipeline.settings import load_settings
from workers.processes.supervisor import supervise
sys.exit(supervise(load_settings(), ["cpu"], command=sys.argv[1:]))
"""
PATIENT = 120.0
NOWHERE = "redis://127.0.0.1:1/0"


class Machine:
    """A machine with one supervisor and a small process as its worker."""

    def __init__(self, home: Path, redis_url: str) -> None:
        self.env = {"PRESSRUN_HOME": str(home), "PRESSRUN_REDIS_URL": redis_url}
        self._workdir = home
        command = [sys.executable, "-c", SUPERVISE, sys.executable, str(STAND_IN), "works"]
        self.supervisor = subprocess.Popen(command, env=os.environ | self.env)
        self.beat()

    def beat(self) -> dict[str, Any]:
        """The supervisor's first heartbeat."""
        deadline = time.monotonic() + PATIENT
        while not (beat := HeartbeatFile(self._workdir).read()).get("alive"):
            assert time.monotonic() < deadline, "no heartbeat"
            time.sleep(0.05)
        return beat

    def asked(self, question: str, code: int, **settings: str) -> dict[str, Any]:
        """The probe's report, with the exit code that it has to have."""
        words = ("doctor", "--probe", question, "--json")
        return answer(pressrun_here(*words, cwd=self._workdir, settings=self.env | settings), code)


@pytest.fixture
def machine(tmp_path: Path, redis_url: str) -> Iterator[Machine]:
    machine = Machine(tmp_path, redis_url)
    yield machine
    machine.supervisor.send_signal(signal.SIGCONT)
    machine.supervisor.terminate()
    machine.supervisor.wait(PATIENT)


def test_a_running_supervisor_is_live_and_ready(machine: Machine) -> None:
    assert machine.asked("live", 0) == {"supervisor": "alive", "healthy": True}
    ready = machine.asked("ready", 0)
    assert (ready["workers"], ready["redis"]) == ("1 of 1 alive", "answers")


def test_without_redis_it_is_not_ready_but_need_not_be_restarted(machine: Machine) -> None:
    assert "PROBLEM" in machine.asked("ready", 1, PRESSRUN_REDIS_URL=NOWHERE)["redis"]
    machine.asked("live", 0, PRESSRUN_REDIS_URL=NOWHERE)


def test_without_a_supervisor_neither_probe_succeeds(machine: Machine) -> None:
    machine.supervisor.terminate()
    machine.supervisor.wait(PATIENT)
    assert not machine.asked("live", 1)["healthy"]
    assert not machine.asked("ready", 1)["healthy"]


def test_a_frozen_supervisor_is_not_live(
    machine: Machine, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(home=machine.env["PRESSRUN_HOME"], redis_url=redis_url)
    monkeypatch.setattr(doctor, "FRESH", 6.0)
    assert doctor.probe(settings, "live")["healthy"]
    machine.supervisor.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + PATIENT
    while doctor.probe(settings, "live")["healthy"]:
        assert time.monotonic() < deadline, "it counts as live for ever"
        time.sleep(0.2)


def test_a_missing_worker_makes_a_machine_not_ready(tmp_path: Path, redis_url: str) -> None:
    settings = load_settings(home=tmp_path, redis_url=redis_url)
    HeartbeatFile(tmp_path).beat(alive=1, wanted=2)
    assert doctor.probe(settings, "live")["healthy"]
    assert doctor.probe(settings, "ready")["workers"] == "PROBLEM: 1 of 2 alive"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at": 1e12, "alive": 1, "wanted": 1}'])
def test_a_damaged_or_future_heartbeat_is_not_live(tmp_path: Path, text: str) -> None:
    (tmp_path / "worker.json").write_text(text)
    assert not doctor.probe(load_settings(home=tmp_path), "live")["healthy"]
