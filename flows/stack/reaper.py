"""Ends what a process has started, when that process is killed: `python -m flows.stack.reaper PID`.

It watches its parent, which has this id and stops it first where there is time to.
"""

import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

POLL_SECONDS = 0.5
"""Seconds between two looks."""
PATIENCE = 20.0
"""Seconds that a process has to leave in."""


def mind(parent: int) -> None:
    """Return when the process `parent` and its other children are gone."""
    started = list[psutil.Process]()
    while os.getppid() == parent:
        with suppress(psutil.NoSuchProcess):
            started = psutil.Process(parent).children()
        time.sleep(POLL_SECONDS)
    end(process for process in started if process.pid != os.getpid())


def end(processes: Iterable[psutil.Process]) -> None:
    """Wait for those that watch the parent themselves, then have the others leave."""
    others = list[psutil.Process]()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            # a supervisor has its workers finish their jobs, for which they need their Redis
            if "--parent" in process.cmdline():
                process.wait()
            else:
                others.append(process)
    for process in others:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(others, PATIENCE)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    mind(int(sys.argv[1]))
