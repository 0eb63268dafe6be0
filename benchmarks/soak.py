"""Whether the books balance, and how soon work goes on, while everything around a run fails.

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
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.common import arguments, show
from flows.cli.output import FAILED_ROWS
from flows.runs.reconcile import reconcile_run
from pipeline.assemble import open_run_folder
from pipeline.job import Job
from pipeline.settings import Settings, load_settings
from tests.harness import connected
from tests.harness.connected import Process, Workdir
from tests.harness.faulty_redis import FaultyRedis, faulty_redis
from tests.harness.faulty_s3 import Fault, FaultyS3, faulty_s3
from tests.harness.jobs import write_jobs
from tests.harness.servers import moto_s3
from workers.queue.leases import LEASE_SECONDS, lease_key
from workers.queue.messages import Message, Queue

WORKERS, CONCURRENCY, SECONDS = 4, 4, 1.0
CALM = 300
"""Jobs of the run in peace."""
LEAST_LEFT = 50
"""Jobs below which a run is left in peace: too few are left to see it recover."""
UNDER_FIRE = 0.7
"""Share of the rate in peace that is left while faults strike."""
BEFORE, WINDOW, BACK = 15.0, 5.0, 0.8
BUCKET = "soak"
MESSAGES = 8
FAST_CLOCK = """
import sys, time
real = time.time
time.time = lambda: real() + 7200
from flows.cli.main import main
sys.argv = ["pressrun", "reconcile", sys.argv[1], "--quick", "--json"]
main()
"""
NOTES_WITHIN = 3
"""Seconds within which a flow at work asks for notes again."""
GIVEN_UP = 5
"""Commands that may give up before the soak does."""


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


@dataclass
class Stage:
    """All that faults can strike, and what is seen meanwhile."""

    workdir: Workdir
    chance: random.Random
    redis_proxy: FaultyRedis
    store_proxy: FaultyS3
    api: str
    redis: Process
    workers: Process
    prefect: Process
    flow: Process | None = None
    run: str = ""
    runs: dict[str, int] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    """When each job did, by run and job."""
    written: Counter[str] = field(default_factory=Counter)
    gave_up: list[str] = field(default_factory=list)
    words: tuple[str, ...] = ()
    """What the flow was begun with."""

    def answered(self, method: str, path: str, status: int) -> None:
        """See the records that the store takes."""
        if method == "PUT" and "/records/" in path and status == 200:
            *_, run, _, record = path.split("/")
            job = f"{run}/{record.removesuffix('.json')}"
            self.ended.setdefault(job, time.monotonic())
            self.written[job] += 1

    @property
    def settings(self) -> Settings:
        """Where the store is."""
        return load_settings(
            store=f"s3://{BUCKET}",
            s3_endpoint_url=self.store_proxy.endpoint,
            home=self.workdir.folder,
        )

    @property
    def left(self) -> int:
        """Jobs without an outcome."""
        return sum(self.runs.values()) - len(self.ended)

    def in_hand(self) -> frozenset[str]:
        """The jobs of the run that a worker has in hand."""
        with Redis.from_url(self.workdir.url, decode_responses=True) as client:
            keys = list(client.scan_iter(lease_key(self.run, "*"), count=1000))
        return frozenset(f"{self.run}/{key.rpartition(':')[2]}" for key in keys)

    def rate(self) -> float:
        """Outcomes per second of late."""
        now = time.monotonic()
        return _count(list(self.ended.values()), now - BEFORE, now) / BEFORE

    def submit(self, rows: int) -> None:
        """Begin a run of so many jobs that no run before had."""
        self.run = f"soak-{len(self.runs) + 1}"
        write_jobs(self.workdir.folder / "jobs.csv", rows, first=sum(self.runs.values()))
        self.runs[self.run] = rows
        self._begin("run", "jobs.csv", "--run", self.run)

    def resume(self) -> None:
        """Go on with the run."""
        self._begin("resume", self.run)

    def look(self) -> bool:
        """Whether the run has ended; one that gave up is begun again."""
        code = self.flow.poll() if self.flow else 0
        if code is None:
            return False
        if code in (0, FAILED_ROWS):
            return True
        self.gave_up.append(f"{self.run} ended with {code}: {self.workdir.complaints()[-3000:]}")
        if len(self.gave_up) > GIVEN_UP:
            raise RuntimeError("\n\n".join(self.gave_up))
        self._begin(*self.words)
        return False

    def at_work(self) -> bool:
        """Whether the flow asks for news of its jobs; one that still starts and finds a service
        away says so and ends, as it should.
        """
        with Redis.from_url(self.workdir.url, decode_responses=True) as client:
            return any(
                one["cmd"].startswith("xread") and int(one["idle"]) < NOTES_WITHIN
                for one in client.client_list()
            )

    def workers_alive(self) -> list[psutil.Process]:
        """The worker processes, without those that have ended."""
        return [one for one in psutil.Process(self.workers.pid).children() if _lives(one)]

    def _begin(self, *words: str) -> None:
        self.words = words
        command = [sys.executable, "-m", "flows.cli", *words, "--json", "--retry", "none"]
        self.flow = self.workdir.start(*command, output=self.workdir.folder / "answers")


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


def set_up(folder: Path, chance: random.Random, stack: ExitStack) -> Stage:
    """Start everything in a folder; it ends with the stack."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request
    server = stack.enter_context(moto_s3(BUCKET))
    os.environ |= server.environment()
    port = _free_port()
    # a socket's path may be no longer than 107 bytes
    proxy = stack.enter_context(faulty_redis(folder / "redis.sock"))
    store = stack.enter_context(faulty_s3(server.endpoint, in_peace))
    workdir = Workdir(
        folder,
        {
            "PRESSRUN_REDIS_URL": proxy.url,
            "PRESSRUN_STORE": f"s3://{BUCKET}",
            "PRESSRUN_S3_ENDPOINT_URL": store.endpoint,
            "PRESSRUN_CONCURRENCY": str(CONCURRENCY),
            "PRESSRUN_WINDOW": "256",
            "PRESSRUN_GRACE_SECONDS": "5",
            "STAND_IN_SECONDS": str(SECONDS),
            "STAND_IN_TALLY": str(folder / "tally"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        },
    )
    (folder / "prefect").mkdir()
    redis, prefect = connected.start_redis(workdir), _start_prefect(workdir, port)
    workers = workdir.start(sys.executable, "-m", "tests.harness.connected", str(WORKERS))
    stage = Stage(workdir, chance, proxy, store, str(port), redis, workers, prefect)
    store.answered = stage.answered
    stack.callback(_tear_down, stage)
    connected.await_workers(workdir, WORKERS, workers)
    return stage


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


def recovery(ended: Mapping[str, float], strike: Strike) -> float:
    """Seconds from a fault's end until what was in hand has ended and the rate is back, or the run
    has ended. `ended` tells when each job did.
    """
    times = sorted(ended.values())
    all_done = max(time for job, time in ended.items() if job.startswith(f"{strike.run}/"))
    before = _count(times, strike.begun - BEFORE, strike.begun) / BEFORE
    enough = max(1.0, before * WINDOW * BACK)
    later = times[bisect_left(times, strike.over) :]
    is_back = (time for time in later if _count(times, time, time + WINDOW) >= enough)
    hit = (ended[job] for job in strike.in_hand if job in ended)
    until = max(min(next(is_back, all_done), all_done), max(hit, default=0.0))
    return max(0.0, until - strike.over)


def in_peace(*_asked: str) -> Fault:
    """A plan of the store's proxy: no fault."""
    return Fault.NONE


def _count(times: Sequence[float], begun: float, ended: float) -> int:
    return bisect_left(times, ended) - bisect_left(times, begun)


def _strike(stage: Stage, kind: str) -> Strike:
    run, in_hand, begun = stage.run, stage.in_hand(), time.monotonic()
    FAULTS[kind](stage)
    return Strike(kind, begun, time.monotonic(), run, in_hand)


def kill_a_worker(stage: Stage) -> None:
    """SIGKILL."""
    _signal(stage, 1, signal.SIGKILL)


def kill_half_of_the_workers(stage: Stage) -> None:
    """SIGKILL, all in one moment."""
    _signal(stage, WORKERS // 2, signal.SIGKILL)


def stop_a_worker(stage: Stage) -> None:
    """SIGTERM: it finishes what it has in hand, or hands it back."""
    _signal(stage, 1, signal.SIGTERM)


def freeze_a_worker(stage: Stage) -> None:
    """SIGSTOP, until its leases have run out; other faults strike meanwhile."""
    frozen = _signal(stage, 1, signal.SIGSTOP)

    def wake() -> None:
        for worker in frozen:
            with suppress(psutil.NoSuchProcess):
                worker.resume()

    timer = threading.Timer(LEASE_SECONDS + 5, wake)
    timer.daemon = True
    timer.start()


def kill_redis(stage: Stage) -> None:
    """kill -9; it is back after two seconds, with its log."""
    stage.redis.kill()
    stage.redis.wait()
    time.sleep(2)
    stage.redis = connected.start_redis(stage.workdir)


def empty_redis(stage: Stage) -> None:
    """Everything in it is gone."""
    with Redis.from_url(stage.workdir.url) as client:
        client.flushall()


def fill_redis(stage: Stage) -> None:
    """It takes no more writes for four seconds."""
    with Redis.from_url(stage.workdir.url) as client:
        client.config_set("maxmemory", 1)
        time.sleep(4)
        client.config_set("maxmemory", 0)


def cut_connections(stage: Stage) -> None:
    """Every connection to Redis breaks."""
    stage.redis_proxy.cut()


def half_open_connections(stage: Stage) -> None:
    """Nothing comes through any connection to Redis that stands, and none is closed."""
    stage.redis_proxy.freeze()


def lose_messages(stage: Stage) -> None:
    """Messages that a worker took from Redis never reach it."""
    stage.redis_proxy.losses = stage.redis_proxy.lost + MESSAGES


def double_messages(stage: Stage) -> None:
    """Messages of jobs that wait, are in work or have ended come once more."""
    run_folder = open_run_folder(stage.settings, stage.run)
    spec = run_folder.spec()
    shard = stage.chance.randint(1, spec.shards)
    jobs = [row for row in run_folder.shards.read(spec.fingerprint, shard) if isinstance(row, Job)]
    chosen = stage.chance.sample(jobs, min(MESSAGES, len(jobs)))
    queue = Queue.connect(stage.workdir.url)
    queue.publish(
        Message(stage.run, spec.fingerprint, shard, job.id, job.priority) for job in chosen
    )


def refuse_at_the_store(stage: Stage) -> None:
    """A 500 or a 503 in place of half of the answers, for six seconds."""
    _plan(stage, 6, 0.5, Fault.REFUSED, Fault.BUSY)


def deny_at_the_store(stage: Stage) -> None:
    """A 403 in place of each answer, for three seconds."""
    _plan(stage, 3, 1.0, Fault.FORBIDDEN)


def lose_answers_of_the_store(stage: Stage) -> None:
    """A third of the requests is done, and answered by a 500 or by nothing, for six seconds."""
    _plan(stage, 6, 0.33, Fault.LOST, Fault.DENIED)


def slow_the_store_down(stage: Stage) -> None:
    """Each answer comes up to a second late, for eight seconds."""
    _plan(stage, 8, 1.0, Fault.LATE)


def reconcile_on_a_fast_clock(stage: Stage) -> None:
    """`pressrun reconcile` beside the run, where the clock is two hours ahead."""
    process = stage.workdir.start(sys.executable, "-c", FAST_CLOCK, stage.run)
    process.wait(120)


def kill_the_flow(stage: Stage) -> None:
    """SIGKILL, and the run is resumed."""
    if stage.flow:
        stage.flow.kill()
        stage.flow.wait()
        stage.resume()


def kill_prefect(stage: Stage) -> None:
    """Prefect's server is killed, and another one started."""
    stage.prefect.kill()
    stage.prefect.wait()
    stage.prefect = _start_prefect(stage.workdir, int(stage.api))


FAULTS: dict[str, Callable[[Stage], None]] = {
    strike.__name__: strike
    for strike in (
        kill_a_worker,
        kill_half_of_the_workers,
        stop_a_worker,
        freeze_a_worker,
        kill_redis,
        empty_redis,
        fill_redis,
        cut_connections,
        half_open_connections,
        lose_messages,
        double_messages,
        refuse_at_the_store,
        deny_at_the_store,
        lose_answers_of_the_store,
        slow_the_store_down,
        reconcile_on_a_fast_clock,
        kill_the_flow,
        kill_prefect,
    )
}


def _signal(stage: Stage, count: int, number: signal.Signals) -> list[psutil.Process]:
    alive = stage.workers_alive()
    chosen = stage.chance.sample(alive, min(count, len(alive)))
    for worker in chosen:
        with suppress(psutil.NoSuchProcess):
            worker.send_signal(number)
    return chosen


def _plan(stage: Stage, seconds: float, share: float, *faults: Fault) -> None:
    dice = random.Random(stage.chance.random())

    def plan(*_asked: str) -> Fault:
        return dice.choice(faults) if dice.random() < share else Fault.NONE

    stage.store_proxy.plan = plan
    time.sleep(seconds)
    stage.store_proxy.plan = in_peace


def _await_outcome(stage: Stage) -> None:
    known = len(stage.ended)
    while len(stage.ended) == known and not stage.look():
        time.sleep(0.1)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _start_prefect(workdir: Workdir, port: int) -> Process:
    words = ["-m", "prefect", "server", "start", "--port", str(port)]
    process = workdir.start(sys.executable, *words)

    def answers() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=2).is_success
        return False

    connected.await_ready(answers, process, workdir)
    return process


def _tear_down(stage: Stage) -> None:
    for process in (stage.flow, stage.workers, stage.prefect, stage.redis):
        if process:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


if __name__ == "__main__":
    main()
