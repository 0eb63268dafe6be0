"""The cluster of one test: an open run, a Redis, breakable workers, and the proof at the end."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from flows.dispatch.breaker import Breaker
from flows.dispatch.dispatcher import Dispatcher
from flows.dispatch.pending import Waits
from flows.runs.open import open_run
from flows.runs.reconcile import Report, reconcile
from pipeline.assemble.stores import open_run_folder
from pipeline.job import Job
from pipeline.jobfile.reader import Overrides
from pipeline.record import Outcome, RunSpec, Status
from pipeline.settings import Settings, load_settings
from tests.harness.breakable_worker import POISON, work
from workers.queue.messages import Queue

ROOT = Path(__file__).parents[2]
WORKER = (sys.executable, "-m", "tests.harness.breakable_worker")
"""The command of a supervisor's workers; it appends the heartbeat pipe."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.harness.breakable_worker", "workers.worker.executor"])
WAITS = Waits(
    first_look=0.5, longest_look=2.0, overtaken=0.5, silence=2.0, longest_requeue=1.0, poll=0.2
)
"""Short ones, so that lost jobs are soon looked for."""
LIMIT = 200.0
RECOVERY = 60.0
"""Seconds within which another job ends after any fault. It takes a few, of which two are for the
leases of a lost worker to run out; the rest is for a machine that is busy.
"""
IN_HAND = 2
"""Jobs that a worker executes at a time: the second executions that its loss may cost."""


class NoProgress:
    """The Progress port, without effect."""

    def count(self, status: Status, device_seconds: float = 0.0) -> None:
        """Nothing."""

    def pause(self, reason: str) -> None:
        """Nothing."""


class Worker:
    """A worker process without a supervisor."""

    def __init__(self, env: dict[str, str]) -> None:
        self._receiver, sender = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=work, args=(sender, env))
        self._process.start()
        sender.close()
        self.pid = self._process.pid or 0

    def has_ended(self) -> bool:
        """True once the process has ended."""
        return not self._process.is_alive()

    def proceed(self) -> None:
        """Wake it after a SIGSTOP."""
        os.kill(self.pid, signal.SIGCONT)

    def leave(self) -> None:
        """Have it finish its jobs and end."""
        self._process.terminate()
        self._process.join(LIMIT)
        assert not self._process.is_alive(), "the worker does not leave"

    def kill(self) -> None:
        """kill -9, whatever state it is in."""
        self._process.kill()
        self._process.join()
        self._receiver.close()


@dataclass
class Cluster:
    """One run, and the processes that work on it."""

    workdir: Path
    redis_url: str
    rows: int = 12
    poison: int = 0
    """Additional rows, each of which kills its worker."""
    env: dict[str, str] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    opened: ClassVar[list["Cluster"]] = []
    """All open clusters; the end of a test closes them, also if it fails."""

    def __post_init__(self) -> None:
        self.opened.append(self)
        jobs = f"{POISON}\n" * self.poison
        jobs += "".join(f"circle number {number}\n" for number in range(self.rows))
        (self.workdir / "jobs.csv").write_text("keywords\n" + jobs, encoding="utf-8")
        self.env = {
            "PRESSRUN_STORE": str(self.workdir / "out"),
            "PRESSRUN_HOME": str(self.workdir / "home"),
            "PRESSRUN_REDIS_URL": self.redis_url,
            "PRESSRUN_CONCURRENCY": str(IN_HAND),
            "PRESSRUN_GRACE_SECONDS": "1",
            "BREAKABLE_WORKDIR": str(self.workdir),
            "STAND_IN_SECONDS": "0.2",
        } | self.env
        self.run_folder = open_run_folder(self.settings, "run", committing=True)
        self.spec: RunSpec = open_run(
            self.workdir / "jobs.csv", Overrides(candidates=1), self.settings, self.run_folder
        )

    @property
    def settings(self) -> Settings:
        """Settings of the run's flow."""
        names = {name: name.lower().removeprefix("pressrun_") for name in self.env}
        known = {names[k]: v for k, v in self.env.items() if names[k] in Settings.model_fields}
        return load_settings(**known)

    @property
    def jobs(self) -> list[Job]:
        """The run's jobs."""
        rows = self.run_folder.shards.read(self.spec.fingerprint, 1)
        return [row for row in rows if isinstance(row, Job)]

    def start_worker(self, **env: str) -> Worker:
        """One more worker, ready to work."""
        worker = Worker(self.env | env)
        self.workers.append(worker)
        self.wait(lambda: any("ready" in line for line in self._noted("pid", worker.pid)))
        return worker

    def arm(self, point: str, number: signal.Signals) -> None:
        """Arm a fault point for the first worker that reaches it."""
        (self.workdir / f"{point}.{number.name}").touch()

    def worker_signalled_at(self, point: str) -> Worker:
        """The worker that was signalled at a fault point, once one was."""
        pid = self.wait(lambda: self._noted("signalled", point))[0]["pid"]
        return next(worker for worker in self.workers if worker.pid == pid)

    @contextmanager
    def dispatching(self, queue: Queue | None = None) -> Iterator["Future[None]"]:
        """Dispatch the run in a thread; leaving the block waits for its success."""
        dispatcher = Dispatcher(
            queue or Queue.connect(self.redis_url),
            self.run_folder,
            self.spec.fingerprint,
            8,
            NoProgress(),
            waits=WAITS,
            breaker=Breaker(first_pause=1.0),
        )
        future: Future[None] = Future()
        # a daemon, unlike a pool's: where the flow hangs the test is red and pytest ends
        threading.Thread(target=self._work, args=(dispatcher, future), daemon=True).start()
        try:
            yield future
            future.result(LIMIT)
        finally:
            dispatcher.stop()

    def _work(self, dispatcher: Dispatcher, future: "Future[None]") -> None:
        try:
            with dispatcher:
                future.set_result(dispatcher.work(1, self.jobs))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)

    def commit_while_frozen(self) -> Outcome:
        """Complete the run while a worker, whose lease was confirmed, freezes before its write to
        the store and wakes after another one has committed its job; return that outcome.
        """
        self.arm("before_record", signal.SIGSTOP)
        self.start_worker(PRESSRUN_CONCURRENCY="1")
        with self.dispatching():
            frozen = self.worker_signalled_at("before_record")
            job = self.job_of(frozen)
            self.start_worker()
            snapshot: Outcome = self.wait(lambda: self.run_folder.records.outcome(job))
            frozen.proceed()
            frozen.leave()
        return snapshot

    def take_over_while_frozen(self) -> tuple[str, int]:
        """Complete the run while a worker freezes between image and record and wakes after its job
        was leased to another one, played here: it must not write. Return the job and the epoch of
        that lease.
        """
        self.arm("after_image", signal.SIGSTOP)
        self.start_worker(PRESSRUN_CONCURRENCY="1")
        with self.dispatching():
            frozen = self.worker_signalled_at("after_image")
            job = self.job_of(frozen)
            leases = Queue.connect(self.redis_url).leases()
            taken = self.wait(lambda: leases.acquire("run", self.spec.fingerprint, job))
            frozen.proceed()
            frozen.leave()
            assert not self.run_folder.records.outcome(job), "it wrote all the same"
            leases.end(taken)
            self.start_worker()
        return job, taken.epoch

    def wait(self, look: Callable[[], Any], limit: float = LIMIT) -> Any:
        """The first true result of `look`."""
        deadline = time.monotonic() + limit
        while not (found := look()):
            assert time.monotonic() < deadline, "what was waited for never came"
            time.sleep(0.02)
        return found

    def recover(self) -> float:
        """Wait for another job to end after a fault; return the seconds that it took."""
        known, begun = set(self.run_folder.records.ids()), time.monotonic()
        self.wait(lambda: set(self.run_folder.records.ids()) - known, RECOVERY)
        return time.monotonic() - begun

    def records(self) -> list[Outcome]:
        """The records there are."""
        return list(self.run_folder.records.outcomes(self.run_folder.records.ids()))

    def job_of(self, worker: Worker) -> str:
        """The id of the only job that a worker has begun."""
        (prompt,) = [n["rendered"] for n in self._noted("pid", worker.pid) if "rendered" in n]
        return next(job.id for job in self.jobs if job.keywords == prompt)

    def executions(self) -> int:
        """Number of renderings, of all jobs."""
        return sum("rendered" in line for line in self.log())

    def log(self) -> list[dict[str, Any]]:
        """The log of all workers."""
        path = self.workdir / "done.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def verify(self, most_executions: int) -> Report:
        """Assert that the records are complete: one for each row, none written twice, no orphan
        left, and no more executions than the fault excuses. Poison rows have failed, all others
        were accepted. Return the reconciler's report.
        """
        self.close()
        report = reconcile(self.run_folder, self.spec, read_images=True, safe_age=0)
        assert (report.lost, report.recovered, report.alarms) == (0, 0, []), report
        statuses = Counter(outcome.status for outcome in self.records())
        assert statuses == Counter(accepted=self.rows, failed=self.poison)
        self._assert_recorded_once()
        images = [blob.key for blob in self.run_folder.listing("images/")]
        kept = [outcome.image for outcome in self.records()]
        named = sorted(self.run_folder.key(image.path) for image in kept if image)
        assert images == named, "an image without a record"
        assert self.rows <= self.executions() <= most_executions, self.executions()
        return report

    def close(self) -> None:
        """End every worker."""
        while self.workers:
            self.workers.pop().kill()

    def _assert_recorded_once(self) -> None:
        """Assert that each job was recorded once at most, and that the record is still the same."""
        won = [(line["recorded"], line["sha256"]) for line in self.log() if "recorded" in line]
        twice = [job for job, count in Counter(job for job, _ in won).items() if count > 1]
        assert not twice, "a winner was written over"
        for job, digest in won:
            assert sha256(self.run_folder.blob(f"records/{job}.json")).hexdigest() == digest

    def _noted(self, kind: str, value: str | int) -> list[dict[str, Any]]:
        return [line for line in self.log() if line.get(kind) == value]
