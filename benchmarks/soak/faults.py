"""The faults of a soak."""

import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
from redis import Redis

from benchmarks.soak.stage import WORKERS, Stage, in_peace, start_prefect
from pipeline.assemble.stores import open_run_folder
from pipeline.job import Job
from tests.harness import connected
from tests.harness.faulty_s3 import Fault
from workers.queue.leases import LEASE_SECONDS
from workers.queue.messages import Message, Queue

MESSAGES = 8
FAST_CLOCK = """
import sys, time
real = time.time
time.time = lambda: real() + 7200
from flows.cli.main import main
sys.argv = ["pressrun", "reconcile", sys.argv[1], "--quick", "--json"]
main()
"""


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
    stage.prefect = start_prefect(stage.workdir, int(stage.api))


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
