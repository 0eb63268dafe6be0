"""How often a worker tries a job, and who reads its parts; with a real Redis and real books."""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from pipeline.cancellation import result_of
from pipeline.errors import ModelError, Unavailable
from pipeline.job import ImageArray, Job, RenderRequest
from pipeline.ports import Ports, Pruner
from pipeline.profile import Profile
from pipeline.record import Outcome, RunSpec, Status
from pipeline.records.shards import ShardFiles
from pipeline.settings import Settings, load_settings
from pipeline.storage.folder import FolderStore
from tests.harness.jobs import make_job
from tests.harness.stand_in import StandInAssembly
from workers.queue.leases import TRIES, lease_key
from workers.queue.messages import JobRequeued, Message, Queue, WorkerFailed
from workers.worker.executor import Executor

pytestmark = pytest.mark.slow

PARTS = 4


class Worker(StandInAssembly):
    """A runtime over an open run of one job in each part; the next `errors` are its renderer's."""

    def __init__(self, settings: Settings, run: str) -> None:
        super().__init__(settings)
        self.errors, self.complaints = list[Exception](), list[str]()
        self.rendered, self.stuck = 0, False
        self.meanwhile: Outcome | None = None
        self.on_render: Callable[[], None] = lambda: None
        self.spec = RunSpec(
            run=run, job_file="jobs.csv", job_file_digest="0" * 24, rows=PARTS, shards=PARTS,
            profile=Profile.load("shapes").model_dump(mode="json"), models={}, created_at="",
            version="",
        )  # fmt: skip
        for part in range(1, PARTS + 1):
            self.run_folder(run).shards.write(self.spec.fingerprint, part, [job(part)])
        self.run_folder(run).write_spec(self.spec)
        self.executor = Executor(settings, self.complaints.append, self)

    def ports(self, spec: RunSpec) -> Ports:
        """The stages of any run."""
        return replace(super().ports(spec), renderer=self)

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        """An image for each seed, once no error is left."""
        self.rendered += 1
        if self.meanwhile:
            self.run_folder(self.spec.run).records.commit(self.meanwhile, None)
        self.on_render()
        if self.errors:
            raise self.errors.pop(0)
        if self.stuck:
            return result_of(Future())
        return [np.zeros((request.height, request.width, 3), np.float32) for _ in request.seeds]

    def execute(self, part: int = 1) -> Outcome | None:
        """What stands in the books once the message of a part's job was worked on."""
        job_id = job(part).id
        self.executor.execute(Message(self.spec.run, self.spec.fingerprint, part, job_id))
        return self.run_folder(self.spec.run).records.outcome(job_id)

    def counted(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        return sum(
            sample.value
            for family in self.executor.metrics.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def job(number: int) -> Job:
    return make_job(number, id=f"j{number}", row=number + 1, width=16, height=16)


@pytest.fixture
def worker(tmp_path: Path, redis_url: str) -> Worker:
    return Worker(load_settings(store=str(tmp_path), redis_url=redis_url), tmp_path.name.lower())


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def unforeseen(count: int) -> list[Exception]:
    return [ValueError("nobody thought of this") for _ in range(count)]


def test_a_job_fails_with_its_last_try(worker: Worker) -> None:
    worker.errors = unforeseen(TRIES)
    for _ in range(TRIES - 1):
        assert worker.execute() is None
    outcome = worker.execute()
    assert outcome
    assert outcome.status is Status.FAILED
    assert outcome.reason == f"{TRIES} tries: ValueError: nobody thought of this"


@pytest.mark.parametrize(
    ("lost", "status", "rendered"),
    [(TRIES - 1, Status.ACCEPTED, 1), (TRIES, Status.FAILED, 0)],
)
def test_a_job_that_took_its_workers_along_is_not_begun_again(
    worker: Worker, redis: Redis, redis_url: str, lost: int, status: Status, rendered: int
) -> None:
    leases, run = Queue.connect(redis_url).leases(), worker.spec.run
    for _ in range(lost):
        assert leases.acquire(run, worker.spec.fingerprint, "j1")
        redis.delete(lease_key(run, "j1"))
    outcome = worker.execute()
    assert outcome
    assert (outcome.status, worker.rendered) == (status, rendered)
    assert worker.counted("pressrun_jobs_total", status=status) == 1


def test_a_job_that_goes_back_for_another_reason_begins_its_tries_anew(worker: Worker) -> None:
    worker.errors = [
        *unforeseen(TRIES - 1), *(Unavailable() for _ in range(TRIES)), *unforeseen(TRIES - 1)
    ]  # fmt: skip
    while worker.errors:
        assert worker.execute() is None
    outcome = worker.execute()
    assert outcome
    assert outcome.status is Status.ACCEPTED


def test_a_lost_device_fails_no_job_with_its_last_try(worker: Worker) -> None:
    worker.errors = [*unforeseen(TRIES - 1), RuntimeError("CUDA error: unspecified launch failure")]
    for _ in range(TRIES):
        assert worker.execute() is None
    assert worker.complaints == ["RuntimeError: CUDA error: unspecified launch failure"]
    assert worker.counted("pressrun_handbacks_total", reason="error") == TRIES - 1
    assert worker.counted("pressrun_handbacks_total", reason="unhealthy") == 1
    assert worker.counted("pressrun_jobs_total") == 0


def test_an_outcome_is_counted_once_by_whom_made_it(worker: Worker) -> None:
    for _ in range(2):
        assert worker.execute()
        worker.executor.flush()  # its lease ends a little later
    assert worker.rendered == 1, "what has its outcome is not executed again"
    assert worker.counted("pressrun_jobs_total") == 1
    assert worker.counted("pressrun_stage_seconds_count", stage="commit") == 1


def test_an_outcome_of_another_is_not_counted(worker: Worker) -> None:
    ours = worker.execute()
    assert ours
    worker.meanwhile = ours.model_copy(
        update={"job_id": "j2", "job": job(2), "image": None, "attempt": "another"}
    )
    theirs = worker.execute(part=2)
    assert theirs
    assert (theirs.attempt, worker.rendered) == ("another", 2)
    assert worker.counted("pressrun_jobs_total") == 1


def test_a_message_of_a_fingerprint_that_was_superseded_is_left_alone(
    worker: Worker, redis_url: str
) -> None:
    """Its part is still there, as until the run is opened."""
    run = worker.spec.run
    worker.run_folder(run).shards.write("earlier", 1, [job(1)])
    worker.executor.execute(Message(run, "earlier", 1, "j1"))
    queue = Queue.connect(redis_url)
    assert (worker.rendered, worker.run_folder(run).records.outcome("j1")) == (0, None)
    assert (queue.events(run, "0", wait=0.01), queue.leased(run, ["j1"])) == ([], set())


def test_all_shards_are_read_in_one_thread(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow keeps memory for each thread that ever read a table."""
    readers, read = set[threading.Thread](), ShardFiles.documents

    def documents(shards: ShardFiles, fingerprint: str, number: int) -> dict[str, str]:
        readers.add(threading.current_thread())
        return read(shards, fingerprint, number)

    monkeypatch.setattr(ShardFiles, "documents", documents)
    numbers = range(1, PARTS + 1)
    threads = [threading.Thread(target=worker.execute, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worker.rendered == PARTS
    assert len(readers) == 1


def test_a_worker_with_another_store_leaves_before_a_job_is_lost(
    worker: Worker, redis_url: str
) -> None:
    run, fingerprint = worker.spec.run, worker.spec.fingerprint
    worker.executor.execute(Message(run, fingerprint, 1, "j1", store="another"))
    assert worker.rendered == 0
    (complaint,) = worker.complaints
    assert "give both the same PRESSRUN_STORE" in complaint
    events = [event for _, event in Queue.connect(redis_url).events(run, "0", wait=0.01)]
    failed = WorkerFailed(complaint, worker.executor.name, fatal=False)
    assert events == [failed, JobRequeued("j1", complaint)]
    store = worker.run_folder(run).store_id
    worker.executor.execute(Message(run, fingerprint, 1, "j1", store=store))
    assert worker.rendered == 1


@pytest.mark.parametrize("part", [0, PARTS + 1, -1, 10**9])
def test_a_message_of_a_part_that_never_was_ends_no_run(
    worker: Worker, redis_url: str, part: int
) -> None:
    run, fingerprint = worker.spec.run, worker.spec.fingerprint
    worker.executor.execute(Message(run, fingerprint, part, "j1"))
    assert worker.complaints == []
    assert Queue.connect(redis_url).events(run, "0", wait=0.01) == []
    assert worker.execute()


def test_a_second_delivery_after_the_commit_renders_nothing(worker: Worker) -> None:
    first = worker.execute()
    worker.executor.flush()  # the lease has gone back
    assert worker.execute() == first
    assert worker.rendered == 1


def test_a_job_of_another_fingerprint_is_left_alone(worker: Worker, redis_url: str) -> None:
    worker.executor.execute(Message(worker.spec.run, "another", 1, "j1"))
    assert (worker.rendered, worker.complaints) == (0, [])
    assert Queue.connect(redis_url).events(worker.spec.run, "0", wait=0.01) == []


def test_a_lease_is_confirmed_before_each_record_where_the_store_has_no_conditions(
    tmp_path: Path, redis_url: str
) -> None:
    """Another worker takes the job over while this one renders."""
    worker = Worker(load_settings(store=str(tmp_path), redis_url=redis_url), tmp_path.name.lower())
    worker._store = FolderStore(tmp_path, conditional=False)
    worker.on_render = lambda: take_over(redis_url, worker.spec.run, "j1")
    assert worker.execute() is None
    assert worker.rendered == 1


def take_over(redis_url: str, run: str, job_id: str) -> None:
    Redis.from_url(redis_url).set(lease_key(run, job_id), "99:another")


def test_a_job_of_a_cancelled_run_is_given_up_and_can_be_done_again(
    worker: Worker, redis_url: str
) -> None:
    queue, run = Queue.connect(redis_url), worker.spec.run
    worker.stuck = True
    threading.Timer(0.5, queue.cancel, (run, worker.spec.fingerprint)).start()
    begun = time.monotonic()
    assert worker.execute() is None
    assert time.monotonic() - begun < 60
    assert not queue.leased(run, ["j1"])
    assert queue.events(run, "0", wait=0.01) == []
    worker.stuck = False
    assert worker.execute() is None, "a cancelled run is left alone"
    queue.reopen(run, worker.spec.fingerprint)
    outcome = worker.execute()
    assert outcome
    assert outcome.status is Status.ACCEPTED


def test_models_are_loaded_without_a_search_for_garbage(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = list[bool]()

    def load(_: Profile) -> None:
        searched.append(gc.isenabled())
        raise ModelError("they are broken")

    monkeypatch.setattr(worker, "load", load)
    worker.executor.warm_up(Profile.load("shapes"))
    assert (searched, gc.isenabled()) == ([False], True)
