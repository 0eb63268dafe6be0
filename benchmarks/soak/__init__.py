"""The balance of rows and records, and the time until work goes on, while everything fails.

Jobs whose images cost nothing but time go through the command line, a Prefect server, Redis
behind a proxy, supervised workers and an S3 server behind a proxy, and every few seconds a random
fault strikes one of these; each kind comes once before any comes again. A first run in peace tells
the rate by which the next one is sized; a run that ends early is followed by another one, and what
is left when the time is over ends in peace. Then every row is compared with its record and every
record with its image.

`lost`, `duplicated`, `recovered` and `unexpected` are the reconciler's counters over all runs.
`duplicated` also counts records that the store took twice, `unexpected` also commands that gave up
by themselves; `executed_again` are the jobs that were executed more than once. The images depend
on the seed alone, so a second execution makes the same file.

A fault's recovery is the time from its end (at once for a kill, the end of an outage) until every
job that a worker had in hand when it struck has ended, and outcomes come at 80 % of the rate of the
15 s before it, over the next 5 s. So it counts what the fault cost the jobs that it hit, such as
the 30 s until a lost worker's leases run out, and what it cost all others. Where the run has ended
first, it is the time until then.
"""

import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import arguments, show
from benchmarks.soak.faults import FAULTS
from benchmarks.soak.recovery import Strike, recovery
from benchmarks.soak.stage import Stage, set_up
from flows.runs.reconcile import reconcile_run

CALM = 300
"""Jobs of the run in peace."""
LEAST_LEFT = 50
"""Jobs below which a run is left in peace: too few are left to see it recover."""
UNDER_FIRE = 0.7
"""Share of the rate in peace that is left while faults strike."""


def main() -> None:
    """Measure and print; the exit code is 1 where the books do not balance."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="for how long faults strike")
    parser.add_argument("--jobs", type=int, default=0, help="of each run, none of them in peace")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=0, help="which faults, when and where")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pressrun-") as folder, ExitStack() as stack:
        stage = set_up(Path(folder), random.Random(given.seed), stack)
        strikes = play(stage, given.minutes * 60, given.jobs, given.every)
        figures = balance(stage, strikes)
    show("Soak", {name: figure for name, figure in figures.items() if name != "by_fault"})
    _show_faults(figures["by_fault"])
    if given.json:
        print(json.dumps(figures))
    sys.exit(any(figures[name] for name in ("lost", "duplicated", "unexpected")))


def play(stage: Stage, seconds: float, jobs: int, every: float) -> list[Strike]:
    """Strike for so many seconds, and see every run to its end."""
    strikes, bag = list[Strike](), list[str]()
    if jobs:
        stage.submit(jobs)
    else:
        stage.submit(CALM)
        while not stage.look():
            time.sleep(0.2)
        rate = CALM / (max(stage.ended.values()) - min(stage.ended.values()))
        stage.submit(int(rate * UNDER_FIRE * seconds))
    _await_outcome(stage)
    start = time.monotonic()
    due = start + every / 2
    while True:
        now = time.monotonic()
        if stage.look():
            if now - start > seconds:
                return strikes
            stage.submit(jobs or max(CALM, int(stage.rate() * (seconds - now + start))))
            _await_outcome(stage)
        elif due <= now < start + seconds and stage.left > LEAST_LEFT and stage.at_work():
            bag = bag or stage.chance.sample(list(FAULTS), len(FAULTS))
            strikes.append(_strike(stage, bag.pop()))
            due = max(due + every, time.monotonic() + 1)
            _tell(stage, strikes[-1], len(strikes), now - start)
        time.sleep(0.2)


def balance(stage: Stage, strikes: Sequence[Strike]) -> dict[str, Any]:
    """The counters over all runs, and how soon work went on after each kind of fault."""
    reports = [reconcile_run(run, stage.settings, safe_age=0) for run in stage.runs]
    sums = Counter[str]()
    for report in reports:
        sums.update({name: report[name] for name in ("lost", "duplicated", "recovered")})
        sums["unexpected"] += report["unexpected"]
        for alarm in report["alarms"]:
            print("alarm:", alarm, file=sys.stderr)
    for why in stage.gave_up:
        print("gave up:", why, file=sys.stderr)
    executions = Counter((stage.workdir.folder / "tally").read_text(encoding="utf-8").split())
    by_kind = defaultdict[str, list[float]](list)
    for strike in strikes:
        by_kind[strike.kind].append(recovery(stage.ended, strike))
    times = sorted(took for each in by_kind.values() for took in each)
    return {
        "jobs": sum(stage.runs.values()),
        "lost": sums["lost"],
        "duplicated": sums["duplicated"] + sum(n > 1 for n in stage.written.values()),
        "recovered": sums["recovered"],
        "executed_again": sum(n > 1 for n in executions.values()),
        "unexpected": sums["unexpected"] + len(stage.gave_up),
        "faults": len(strikes),
        "recovery_p95_s": times[int(0.95 * (len(times) - 1))] if times else 0.0,
        "executions": executions.total(),
        "by_fault": {
            kind: {"count": len(took), "p50_s": median(took), "max_s": max(took)}
            for kind, took in sorted(by_kind.items())
        },
    }


def _strike(stage: Stage, kind: str) -> Strike:
    run, in_hand, begun = stage.run, stage.in_hand(), time.monotonic()
    FAULTS[kind](stage)
    return Strike(kind, begun, time.monotonic(), run, in_hand)


def _await_outcome(stage: Stage) -> None:
    known = len(stage.ended)
    while len(stage.ended) == known and not stage.look():
        time.sleep(0.1)


def _tell(stage: Stage, strike: Strike, count: int, seconds: float) -> None:
    print(
        f"{seconds / 60:5.1f} min  fault {count}: {strike.kind.replace('_', ' ')}"
        f" ({strike.over - strike.begun:.1f} s)  outcomes {len(stage.ended):,}"
        f"  rate {stage.rate():.1f}/s  left {stage.left:,}",
        file=sys.stderr,
        flush=True,
    )


def _show_faults(by_fault: dict[str, dict[str, Any]]) -> None:
    table = Table("fault", "count", "p50 s", "max s", title="Recovery", title_justify="left")
    for kind, found in by_fault.items():
        seconds = (f"{found[name]:.1f}" for name in ("p50_s", "max_s"))
        table.add_row(kind.replace("_", " "), str(found["count"]), *seconds)
    Console().print(table)
