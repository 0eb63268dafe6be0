"""The ends of a worker process, seen from inside: a small process with the real Shutdown."""

import os
import subprocess
import sys

import pytest

from workers.processes.heartbeat import Heartbeat
from workers.processes.lifecycle import Exit

pytestmark = pytest.mark.slow

PREAMBLE = """
import os, signal, sys, time
from pipeline.settings import load_settings
from workers.worker.shutdown import Shutdown

class Executor:
    in_flight = 2
    def requeue_all(self):
        print("handed back", flush=True)

shutdown = Shutdown(load_settings(grace_seconds=float(sys.argv[2])), int(sys.argv[1]))
shutdown.executor = Executor()
shutdown.start_heartbeats()

def work():
    # in naps, as Celery's loop: one that began as a signal came would sleep to its end
    for _ in range(200):
        time.sleep(0.1)
    os._exit(99)  # none of the ends
"""
ENDS_IN_TIME = """
signal.signal(signal.SIGTERM, lambda *_: shutdown.exit(0))
shutdown.report_unhealthy("the disk is full")
work()
"""
TAKES_TOO_LONG = """
signal.signal(signal.SIGTERM, lambda *_: shutdown.start_grace_period())
os.kill(os.getpid(), signal.SIGTERM)
work()
"""
LOST = """
signal.signal(signal.SIGTERM, lambda *_: print("waited for"))
shutdown.report_unhealthy("AcceleratorError: CUDA error: an illegal memory access was encountered")
"""
ORPHANED = """
signal.signal(signal.SIGTERM, lambda *_: shutdown.exit(0))
work()
"""

CANNOT_CLOSE = """
class Assembly:
    def close(self):
        raise OSError("the lock is gone")

shutdown.close(Assembly())
shutdown.exit(0)
"""
CLOSES_FOR_EVER = """
class Assembly:
    def close(self):
        work()

shutdown.close(Assembly())
"""


class Ended:
    """A process that ran the preamble and some more, after its end."""

    def __init__(self, code: str, *, grace: float = 15, orphan: bool = False) -> None:
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code, str(writer), str(grace)],
            pass_fds=[writer], stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(writer)
        self.first = Heartbeat.read(os.read(reader, 512).splitlines()[0])
        lines = [] if orphan else self._rest(reader)
        os.close(reader)
        self.said, _ = process.communicate(timeout=120)
        self.code, self.last = process.returncode, Heartbeat.read(lines[-1]) if lines else None

    def _rest(self, reader: int) -> list[bytes]:
        with os.fdopen(os.dup(reader), "rb") as pulse:
            return pulse.read().splitlines()


def test_an_unhealthy_worker_says_why_and_ends_with_its_own_code() -> None:
    ended = Ended(ENDS_IN_TIME)
    assert ended.first.in_flight == 2
    assert ended.code == Exit.UNHEALTHY
    assert ended.last
    assert ended.last.problem == "the disk is full"
    assert "handed back" not in ended.said


def test_jobs_unfinished_after_the_grace_period_are_handed_back() -> None:
    ended = Ended(TAKES_TOO_LONG, grace=1)
    assert ended.code == Exit.HANDED_BACK
    assert "handed back" in ended.said


def test_what_cannot_be_closed_leaves_the_worker_its_own_end() -> None:
    ended = Ended(CANNOT_CLOSE)
    assert ended.code == Exit.DONE
    assert ended.last  # the heartbeat of its end


def test_closing_is_waited_for_within_the_grace_period() -> None:
    assert Ended(CLOSES_FOR_EVER, grace=1).code == Exit.HANDED_BACK


def test_a_lost_device_ends_the_worker_without_waiting() -> None:
    ended = Ended(LOST)
    assert ended.code == Exit.UNHEALTHY
    assert "handed back" in ended.said
    assert "waited for" not in ended.said
    assert ended.last
    assert "illegal memory access" in ended.last.problem


def test_a_worker_without_its_supervisor_ends() -> None:
    ended = Ended(ORPHANED, orphan=True)
    assert ended.code == Exit.DONE
