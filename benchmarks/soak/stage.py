"""All that runs in a soak: services, workers and the flow, and what is seen of them."""

import logging
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from redis import Redis

from benchmarks.soak.recovery import BEFORE, count
from flows.cli.output import FAILED_ROWS
from pipeline.settings import Settings, load_settings
from tests.harness import connected
from tests.harness.connected import Process, Workdir
from tests.harness.faulty_redis import FaultyRedis, faulty_redis
from tests.harness.faulty_s3 import Fault, FaultyS3, faulty_s3
from tests.harness.jobs import write_jobs
from tests.harness.servers import moto_s3
from workers.queue.leases import lease_key

WORKERS, CONCURRENCY, SECONDS = 4, 4, 1.0
BUCKET = "soak"
NOTES_WITHIN = 3
"""Seconds within which a flow at work asks for notes again."""
GIVEN_UP = 5
"""Commands that may give up before the soak does."""


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
    """The time at which each job ended, by run and job."""
    written: Counter[str] = field(default_factory=Counter)
    gave_up: list[str] = field(default_factory=list)
    words: tuple[str, ...] = ()
    """The words of the flow's command."""

    def answered(self, method: str, path: str, status: int) -> None:
        """See the records that the store takes."""
        if method == "PUT" and "/records/" in path and status == 200:
            *_, run, _, record = path.split("/")
            job = f"{run}/{record.removesuffix('.json')}"
            self.ended.setdefault(job, time.monotonic())
            self.written[job] += 1

    @property
    def settings(self) -> Settings:
        """The settings of the store."""
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
        return count(list(self.ended.values()), now - BEFORE, now) / BEFORE

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
        """True if the run has ended; one that gave up is begun again."""
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
        """True if the flow asks for news of its jobs; one that still starts and finds a service
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
    redis, prefect = connected.start_redis(workdir), start_prefect(workdir, port)
    workers = workdir.start(sys.executable, "-m", "tests.harness.connected", str(WORKERS))
    stage = Stage(workdir, chance, proxy, store, str(port), redis, workers, prefect)
    store.answered = stage.answered
    stack.callback(_tear_down, stage)
    connected.await_workers(workdir, WORKERS, workers)
    return stage


def in_peace(*_asked: str) -> Fault:
    """A plan of the store's proxy: no fault."""
    return Fault.NONE


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def start_prefect(workdir: Workdir, port: int) -> Process:
    """Prefect's server on this port, when it answers."""
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
