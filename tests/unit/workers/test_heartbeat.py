"""Heartbeats: a worker's steps, sent through a pipe, received by its supervisor."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from pipeline import watchdog as process
from pipeline.watchdog import Watchdog as Steps
from workers.processes import heartbeat
from workers.processes.heartbeat import STARTUP, Heartbeat, Listener, send

Sleep = Callable[[int], None]


@pytest.fixture
def sleep(monkeypatch: pytest.MonkeyPatch) -> Sleep:
    """Let seconds pass, by a clock that stands still meanwhile, however loaded the machine is."""
    clock = SimpleNamespace(now=int(time.monotonic()))
    for module in (process, heartbeat):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def sleep(seconds: int) -> None:
        clock.now += seconds

    return sleep


def test_the_time_since_the_last_step_grows_until_the_next(sleep: Sleep) -> None:
    steps = Steps()
    sleep(5)
    assert steps.seconds_since_beat() == 5
    steps.beat()
    assert steps.seconds_since_beat() == 0


def test_a_suspended_watchdog_reports_no_silence(sleep: Sleep) -> None:
    steps = Steps()
    with steps.suspended():
        with steps.suspended():
            sleep(5)
        sleep(5)
        assert steps.seconds_since_beat() == 0
    assert steps.seconds_since_beat() == 0, "the end of it is a step"
    sleep(5)
    assert steps.seconds_since_beat() == 5


def test_every_batched_call_is_a_step(sleep: Sleep) -> None:
    from pipeline.models.batching import Batcher

    batcher = Batcher[int, int]("test", lambda items: list(items), limit=1)
    process.beat()
    sleep(5)
    assert process.seconds_since_beat() == 5
    batcher(1)
    assert process.seconds_since_beat() == 0
    batcher.close()


@pytest.mark.parametrize(
    "said", [Heartbeat(), Heartbeat(3, 1.25), Heartbeat(0, 0.5, 12.5, "CUDA error: it broke")]
)
def test_a_heartbeat_is_read_as_it_was_written(said: Heartbeat) -> None:
    assert Heartbeat.read(said.line().removesuffix(b"\n")) == said


def test_a_problem_is_cut_to_one_line_that_is_written_whole() -> None:
    line = Heartbeat(problem="it broke\nbadly " + "é" * 1000).line()
    assert line.count(b"\n") == 1
    assert line.startswith(b"0 0.00 0.00 it broke badly ")
    assert len(line) < 512
    assert Heartbeat.read(line[:-1]).in_flight == 0


def test_the_listener_keeps_the_latest_heartbeat_and_measures_silence(sleep: Sleep) -> None:
    reader, writer = os.pipe()
    listener = Listener(reader)
    assert listener.listen() == -STARTUP
    os.write(writer, Heartbeat(1).line() + b"no pulse at all\n" + Heartbeat(2, 7).line()[:3])
    assert listener.listen() == 0
    assert listener.latest == Heartbeat(1)
    sleep(5)
    assert listener.listen() == 5
    os.write(writer, Heartbeat(2, 7).line()[3:])
    listener.listen()
    assert listener.latest == Heartbeat(2, 7)
    os.close(writer)
    listener.listen()
    listener.close()


def test_a_sender_notices_a_closed_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    reader, writer = os.pipe()
    orphaned = threading.Event()
    threading.Thread(target=send, args=(writer, Heartbeat, orphaned.set), daemon=True).start()
    assert os.read(reader, 100).startswith(b"0 0.00")
    assert not orphaned.is_set()
    os.close(reader)
    assert orphaned.wait(60)
    os.close(writer)


STUCK = """
import ctypes, os, sys, time
from pipeline.settings import load_settings
from workers.worker.shutdown import Shutdown
Shutdown(load_settings(hang_seconds=0.5, grace_seconds=0.5), int(sys.argv[1])).start_heartbeats()
time.sleep(0.5)
ctypes.PyDLL(None).sleep(240)  # unlike CDLL, holds the interpreter's lock
"""


def test_an_orphan_stuck_in_one_call_ends_by_itself_and_shows_where() -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(writer)], pass_fds=[writer], stderr=subprocess.PIPE
    )
    os.close(writer)
    _, complaint = process.communicate(timeout=120)
    os.close(reader)
    assert process.returncode == 1
    assert b'File "<string>", line 7' in complaint
