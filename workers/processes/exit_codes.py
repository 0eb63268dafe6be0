"""How a worker process ends: the exit codes of its own, and words for every one."""

import signal
from enum import IntEnum


class Exit(IntEnum):
    """What a worker process ends with."""

    DONE = 0
    HANDED_BACK = 75
    UNHEALTHY = 76
    MISCONFIGURED = 78


_WORDS = {
    Exit.DONE: "it was told to stop",
    Exit.HANDED_BACK: "it handed back what it could not finish in time",
    Exit.UNHEALTHY: "it is unhealthy",
    Exit.MISCONFIGURED: "a setting is wrong",
}


def describe(code: int) -> str:
    """Words for the exit status of a process, which is negative where a signal ended it."""
    if code in _WORDS:
        return _WORDS[Exit(code)]
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        return f"{signal.Signals(-code).name} ended it"
    except ValueError:
        return f"signal {-code} ended it"
