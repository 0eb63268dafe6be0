"""Flow and workers through a real Redis: the queue and the dispatcher."""

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flows.dispatch.breaker import LEAST, Breaker
from flows.dispatch.budget import FIRST, Budget
from flows.dispatch.dispatcher import (
    WORKER_FAILURES,
    Dispatcher,
    OutOfBudget,
    QuotaMet,
    Stopped,
)
from flows.dispatch.pending import Waits
from flows.dispatch.window import Window
from pipeline.errors import ConfigError, RunError, Unavailable
from pipeline.job import Job
from pipeline.record import Outcome, Status
from pipeline.records.run_folder import RunFolder
from pipeline.storage.folder import FolderStore
from tests.harness.jobs import make_job
from workers.queue.messages import (
    Event,
    JobDone,
    JobRequeued,
    Message,
    Queue,
    WorkerFailed,
    decode,
    encode,
)

pytestmark = pytest.mark.slow


def job(number: int) -> Job:
    return make_job(number, priority=number % 3)


def outcome(run: str, number: int, status: Status = Status.ACCEPTED) -> Outcome:
    return Outcome(
        run=run, job_id=job(number).id, status=status, row=number + 2, keywords="red circle",
        device_seconds={"renderer": 0.75, "judge": 0.25},
    )  # fmt: skip


@pytest.fixture
def queue(redis_url: str) -> Queue:
    return Queue.connect(redis_url)


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    return RunFolder(FolderStore(tmp_path), tmp_path.name.lower())


def test_events_come_in_order_and_only_after_the_given_id(
    queue: Queue, run_folder: RunFolder
) -> None:
    queue.publish_result(outcome(run_folder.run, 0))
    mark = queue.latest_event(run_folder.run)
    queue.publish_result(outcome(run_folder.run, 1))
    queue.requeue(run_folder.run, "j002", "no memory")
    queue.report_error(run_folder.run, "the model is broken", worker="w", fatal=True)
    events = queue.events(run_folder.run, mark, wait=5.0)
    assert [event for _, event in events] == [
        JobDone("j001", Status.ACCEPTED, 1.0),
        JobRequeued("j002", "no memory"),
        WorkerFailed("the model is broken", "w", fatal=True),
    ]
    assert queue.events(run_folder.run, events[-1][0], wait=0.01) == []


def test_publishing_a_result_gives_the_lease_back(queue: Queue, run_folder: RunFolder) -> None:
    lease = queue.leases().acquire(run_folder.run, "fingerprint", "j000")
    assert lease
    queue.publish_result(outcome(run_folder.run, 0), lease)
    events = queue.events(run_folder.run, "0", wait=5.0)
    assert [event for _, event in events] == [JobDone("j000", Status.ACCEPTED, 1.0)]
    assert not queue.leased(run_folder.run, ["j000"])


@pytest.mark.parametrize(
    ("url", "error"),
    [("redis://127.0.0.1:1/0", Unavailable), ("unix:///nowhere.sock", Unavailable),
     ("http://x", ConfigError)],
)  # fmt: skip
def test_an_unreachable_redis_is_a_clear_error(url: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"Redis|REDIS"):
        Queue.connect(url)


@pytest.mark.parametrize(
    "fields",
    [
        {"job": "j000", "status": "splendid"},
        {"job": "j000", "status": "accepted", "device_seconds": "many"},
        {"job": "j000", "status": "accepted", "device_seconds": "nan"},
        {"job": "j000", "status": "accepted", "device_seconds": "-1e300"},
        {"what": "ever"},
    ],
)
def test_an_entry_that_cannot_be_read_is_passed_over(
    redis_url: str, queue: Queue, run_folder: RunFolder, fields: dict[Any, Any]
) -> None:
    Redis.from_url(redis_url).xadd(f"pressrun:{run_folder.run}:events", fields)
    ((event_id, event),) = queue.events(run_folder.run, "0", wait=5.0)
    assert event is None
    assert queue.events(run_folder.run, event_id, wait=0.01) == []


@pytest.mark.parametrize(
    "event",
    [
        JobDone("j000", Status.BELOW_GATE, 0.125),
        JobRequeued("j000", "no memory"),
        WorkerFailed("the disk is full", "pressrun-1@host", fatal=False),
    ],
)
def test_an_event_is_decoded_as_it_was_encoded(event: Event) -> None:
    assert decode(encode(event)) == event


class Told:
    """Remembers what the dispatcher tells."""

    def __init__(self) -> None:
        self.statuses, self.reasons = list[Status](), list[str]()

    def count(self, status: Status, device_seconds: float = 0.0) -> None:
        self.statuses.append(status)

    def pause(self, reason: str) -> None:
        self.reasons.append(reason)


class Recorder(Queue):
    """A queue that also keeps what was published, to see the window."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sent: list[str] = []

    def publish(self, messages: Iterable[Message]) -> None:
        found = list(messages)
        self.sent += [message.job for message in found]
        super().publish(found)


def answer_all(queue: Recorder, run: str, most_flying: list[int], total: int) -> None:
    """A worker's part: an outcome for each job sent, a little later."""
    done = 0
    while done < total:
        most_flying.append(len(queue.sent) - done)
        if done < len(queue.sent):
            queue.publish_result(outcome(run, int(queue.sent[done][1:])))
            done += 1
        time.sleep(0.002)


def test_the_dispatcher_keeps_a_bounded_window_and_returns_when_all_have_ended(
    redis_url: str, run_folder: RunFolder
) -> None:
    queue, in_flight, told = Recorder(redis_url), list[int](), Told()
    worker = threading.Thread(target=answer_all, args=(queue, run_folder.run, in_flight, 50))
    worker.start()
    work(Dispatcher(queue, run_folder, "e", 8, told), map(job, range(50)))
    worker.join()
    assert told.statuses == [Status.ACCEPTED] * 50
    assert 2 <= max(in_flight) <= 8
    first = [int(name[1:]) % 3 for name in queue.sent]
    assert first == sorted(first), "priority 0 goes first"


def test_more_jobs_are_in_flight_once_more_workers_are_there(
    redis_url: str, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.dispatch.window.LOOK", 0.05)
    monkeypatch.setattr("flows.dispatch.window.LEAST", 8)
    queue, places = Recorder(redis_url), [1]
    with Window(lambda: places[0], shard=50) as window:
        dispatcher = Dispatcher(queue, run_folder, "e", window.of_shard, Told())
        working = threading.Thread(target=work, args=(dispatcher, map(job, range(50))))
        working.start()
        while len(queue.sent) < 4:
            time.sleep(0.01)
        time.sleep(0.5)
        assert len(queue.sent) == 4, "half of eight: two shards are in work"
        places[0] = 100
        answer_all(queue, run_folder.run, in_flight := list[int](), 50)
        working.join()
    assert 25 < max(in_flight) <= 50


def test_a_run_waits_for_its_first_worker_and_fills_the_queue_with_no_copies(
    redis_url: str, run_folder: RunFolder
) -> None:
    queue = Recorder(redis_url)
    dispatcher = Dispatcher(
        queue,
        run_folder,
        "e",
        8,
        Told(),
        wait=60,
        waits=Waits(first_look=0.1, silence=0.1, no_worker=0.2),
    )
    working = threading.Thread(target=work, args=(dispatcher, [job(0)]))
    working.start()
    time.sleep(3)
    assert working.is_alive()
    assert queue.sent == ["j000"]
    queue.publish_result(outcome(run_folder.run, 0))
    working.join(30)
    assert not working.is_alive()


@pytest.mark.parametrize("seconds", [0.5, 10.0, 25.0])
def test_a_budget_leaves_the_jobs_that_do_not_fit(
    redis_url: str, run_folder: RunFolder, seconds: float
) -> None:
    queue, told, over = Recorder(redis_url), Told(), threading.Event()
    worker = threading.Thread(target=answer_until, args=(queue, run_folder.run, over))
    worker.start()
    dispatcher = Dispatcher(queue, run_folder, "e", 16, told, Budget(seconds))
    with pytest.raises(OutOfBudget, match=f"{seconds:g} device seconds"):
        work(dispatcher, map(job, range(50)))
    over.set()
    worker.join()
    assert len(told.statuses) == len(queue.sent) == dispatcher.budget.spent
    assert dispatcher.budget.spent <= max(FIRST, seconds)
    assert dispatcher.budget.spent >= min(FIRST, seconds - 1)


@pytest.mark.parametrize("quota", [0, 1, 20])
def test_a_quota_leaves_the_jobs_that_it_does_not_need(
    redis_url: str, run_folder: RunFolder, quota: int
) -> None:
    queue, told, over = Recorder(redis_url), Told(), threading.Event()
    worker = threading.Thread(target=answer_until, args=(queue, run_folder.run, over))
    worker.start()
    dispatcher = Dispatcher(queue, run_folder, "e", 16, told, Budget(quota=quota))
    with pytest.raises(QuotaMet, match=f"{quota} images are accepted"):
        work(dispatcher, map(job, range(50)))
    over.set()
    worker.join()
    assert told.statuses == [Status.ACCEPTED] * quota
    assert len(queue.sent) == quota


def work(dispatcher: Dispatcher, jobs: Iterable[Job]) -> None:
    """Work on one shard."""
    with dispatcher:
        dispatcher.work(1, jobs)


def answer_until(queue: Recorder, run: str, over: threading.Event) -> None:
    done = 0
    while not over.wait(0.002):
        if done < len(queue.sent):
            queue.publish_result(outcome(run, int(queue.sent[done][1:])))
            done += 1


def test_each_event_reaches_the_shard_of_its_job(redis_url: str, run_folder: RunFolder) -> None:
    queue, told = Recorder(redis_url), Told()
    dispatcher = Dispatcher(queue, run_folder, "e", 8, told)
    shards = 3
    with ThreadPoolExecutor(shards) as pool, dispatcher:
        works = [pool.submit(dispatcher.work, shard, [job(shard)]) for shard in range(shards)]
        while len(queue.sent) < shards:
            time.sleep(0.01)
        for shard in reversed(range(shards)):
            assert not works[shard].done()
            queue.publish_result(outcome(run_folder.run, shard))
            works[shard].result(30)
    assert told.statuses == [Status.ACCEPTED] * shards


def test_a_worker_that_fails_ends_every_shard(redis_url: str, run_folder: RunFolder) -> None:
    queue = Recorder(redis_url)
    dispatcher = Dispatcher(queue, run_folder, "e", 8, Told())
    with ThreadPoolExecutor(2) as pool, dispatcher:
        works = [pool.submit(dispatcher.work, shard, [job(shard)]) for shard in range(2)]
        queue.report_error(run_folder.run, "the model is broken", worker="w", fatal=True)
        for work in works:
            with pytest.raises(RunError, match="the model is broken"):
                work.result(30)


@pytest.mark.parametrize(("fatal", "complaints"), [(True, 1), (False, WORKER_FAILURES)])
def test_workers_that_cannot_work_stop_the_run(
    redis_url: str, run_folder: RunFolder, fatal: bool, complaints: int
) -> None:
    queue = Queue.connect(redis_url)
    report_error = partial(queue.report_error, worker="w", fatal=fatal)
    for n in range(complaints):
        threading.Timer(0.3 + n / 10, report_error, (run_folder.run, "the model is broken")).start()
    with pytest.raises(RunError, match="the model is broken"):
        work(Dispatcher(queue, run_folder, "e", 8, Told()), [job(0)])


def test_stopping_ends_the_dispatcher(redis_url: str, run_folder: RunFolder) -> None:
    dispatcher = Dispatcher(Queue.connect(redis_url), run_folder, "e", 8, Told())
    threading.Timer(0.3, dispatcher.stop).start()
    with pytest.raises(Stopped):
        work(dispatcher, [job(0)])


def test_a_cancellation_in_the_store_ends_the_dispatcher(
    redis_url: str, run_folder: RunFolder
) -> None:
    threading.Timer(0.3, run_folder.request_cancel).start()
    with pytest.raises(Stopped):
        work(
            Dispatcher(
                Queue.connect(redis_url), run_folder, "e", 8, Told(), waits=Waits(cancel_look=0.2)
            ),
            [job(0)],
        )


def test_an_outcome_without_its_event_is_found_in_the_store(
    redis_url: str, run_folder: RunFolder
) -> None:
    run_folder.records.commit(outcome(run_folder.run, 0), None)
    told = Told()
    dispatcher = Dispatcher(
        Queue.connect(redis_url), run_folder, "e", 8, told, waits=Waits(first_look=0.2)
    )
    work(dispatcher, [job(0)])
    assert (told.statuses, dispatcher.budget.spent) == ([Status.ACCEPTED], 1.0)


def test_a_lost_message_is_sent_again(redis_url: str, run_folder: RunFolder) -> None:
    queue, told = Recorder(redis_url), Told()
    worker = threading.Thread(target=answer_second_delivery, args=(queue, run_folder.run))
    worker.start()
    waits = Waits(first_look=0.2, silence=0.1)
    work(Dispatcher(queue, run_folder, "e", 8, told, waits=waits), [job(0)])
    worker.join()
    assert queue.sent == ["j000", "j000"]


def answer_second_delivery(queue: Recorder, run: str) -> None:
    while len(queue.sent) < 2:
        time.sleep(0.01)
    queue.publish_result(outcome(run, 0))


def test_a_leased_job_is_not_sent_again(redis_url: str, run_folder: RunFolder) -> None:
    queue = Recorder(redis_url)
    lease = queue.leases().acquire(run_folder.run, "e", "j000")
    assert lease
    threading.Timer(1.0, queue.publish_result, (outcome(run_folder.run, 0),)).start()
    waits = Waits(first_look=0.2, silence=0.1)
    work(Dispatcher(queue, run_folder, "e", 8, Told(), waits=waits), [job(0)])
    assert queue.sent == ["j000"]


def test_a_job_that_went_back_is_sent_again(redis_url: str, run_folder: RunFolder) -> None:
    queue, told = Recorder(redis_url), Told()
    worker = threading.Thread(target=answer_second_delivery, args=(queue, run_folder.run))
    threading.Timer(0.2, queue.requeue, (run_folder.run, "j000", "no memory")).start()
    worker.start()
    dispatcher = Dispatcher(queue, run_folder, "e", 8, told)
    work(dispatcher, [job(0)])
    worker.join()
    assert (queue.sent, dispatcher.sent_again) == (["j000", "j000"], 1)


def test_without_a_worker_the_dispatcher_says_so(redis_url: str, run_folder: RunFolder) -> None:
    with pytest.raises(RunError, match="No worker answers"):
        work(
            Dispatcher(
                Queue.connect(redis_url),
                run_folder,
                "e",
                8,
                Told(),
                waits=Waits(first_look=0.2, no_worker=0.5),
            ),
            [job(0)],
        )


class Away(Recorder):
    """A Redis that does not answer who works, the first time."""

    asked = 0

    def workers(self) -> list[str]:
        self.asked += 1
        if self.asked == 1:
            raise Unavailable("the queue: Timeout reading from socket")
        return ["worker"]


def test_a_redis_that_is_away_when_workers_are_looked_for_is_waited_for(
    redis_url: str, run_folder: RunFolder
) -> None:
    queue = Away(redis_url)
    worker = threading.Thread(
        target=answer_second_delivery, args=(queue, run_folder.run), daemon=True
    )
    worker.start()
    work(
        Dispatcher(
            queue,
            run_folder,
            "e",
            8,
            Told(),
            waits=Waits(first_look=0.2, silence=0.1, no_worker=0.1),
        ),
        [job(0)],
    )
    worker.join(10)
    assert queue.asked > 1


def test_an_open_breaker_leaves_room_for_no_job(redis_url: str, run_folder: RunFolder) -> None:
    queue, told = Recorder(redis_url), Told()
    dispatcher = Dispatcher(
        queue, run_folder, "e", 2 * LEAST, told, breaker=Breaker(first_pause=60.0)
    )
    threading.Thread(target=send_some_back, args=(queue, run_folder.run), daemon=True).start()
    threading.Timer(3.0, dispatcher.stop).start()
    with pytest.raises(Stopped):
        work(dispatcher, map(job, range(50)))
    assert (len(queue.sent), told.reasons[-1]) == (2 * LEAST, "S3 is down")


def send_some_back(queue: Recorder, run: str) -> None:
    while len(queue.sent) < 2 * LEAST:
        time.sleep(0.01)
    for job_id in queue.sent[:LEAST]:
        queue.requeue(run, job_id, "S3 is down")
