"""The time until a run has recovered from a fault."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BEFORE, WINDOW, BACK = 15.0, 5.0, 0.8


@dataclass(frozen=True)
class Strike:
    """One fault: its kind, from when to when it lasted, and in which run; `in_hand` are the jobs
    that workers had begun.
    """

    kind: str
    begun: float
    over: float
    run: str
    in_hand: frozenset[str]


def recovery(ended: Mapping[str, float], strike: Strike) -> float:
    """Seconds from a fault's end until what was in hand has ended and the rate is back, or the run
    has ended. `ended` tells when each job did.
    """
    times = sorted(ended.values())
    all_done = max(time for job, time in ended.items() if job.startswith(f"{strike.run}/"))
    before = count(times, strike.begun - BEFORE, strike.begun) / BEFORE
    enough = max(1.0, before * WINDOW * BACK)
    later = times[bisect_left(times, strike.over) :]
    is_back = (time for time in later if count(times, time, time + WINDOW) >= enough)
    hit = (ended[job] for job in strike.in_hand if job in ended)
    until = max(min(next(is_back, all_done), all_done), max(hit, default=0.0))
    return max(0.0, until - strike.over)


def count(times: Sequence[float], begun: float, ended: float) -> int:
    """The number of times between these two."""
    return bisect_left(times, ended) - bisect_left(times, begun)
