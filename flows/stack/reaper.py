"""Ends the children of a process that was killed: `python -m flows.stack.reaper PID`.

It watches its parent (PID). On a normal exit the parent stops this process first.
"""

import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

POLL_SECONDS = 0.5
"""Seconds between two looks at the parent."""
PATIENCE = 20.0
"""Seconds for a process to end before it is killed."""


def watch(parent: int) -> None:
    """Wait until the process `parent` is gone, then end its other children."""
    started = list[psutil.Process]()
    while os.getppid() == parent:
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(parent).children()
            # none of them is its child any more where it has just died
            started = children if os.getppid() == parent else started
        time.sleep(POLL_SECONDS)
    end(process for process in started if process.pid != os.getpid())


def end(processes: Iterable[psutil.Process]) -> None:
    """Wait for processes that watch the parent themselves, then terminate the others."""
    others = list[psutil.Process]()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            # a supervisor lets its workers finish their jobs, which need the Redis among the others
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
    watch(int(sys.argv[1]))
