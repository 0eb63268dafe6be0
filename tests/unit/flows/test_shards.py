"""The shards of a run in work: which rows are done again, and what is kept of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from flows.dispatch.budget import Budget
from flows.dispatch.dispatcher import Dispatcher
from flows.dispatch.opening import Opening
from flows.dispatch.progress import RunProgress
from flows.runs.lines import RunLines
from flows.runs.open import forget, open_run
from flows.session import Shards
from pipeline.assemble.stores import open_run_folder
from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides
from pipeline.record import Outcome, Status
from pipeline.records.run_folder import RunFolder
from pipeline.settings import load_settings
from workers.queue.messages import JobDone, Message, Queue


class Inline:
    """A dispatcher that ends each job at once."""

    def __init__(self, run_folder: RunFolder, before: Callable[[Any], None]) -> None:
        self._run_folder, self._before = run_folder, before
        self.worked = list[tuple[str, int]]()

    def patiently(self, call: Callable[[], Any]) -> Any:
        self._before(call)
        return call()

    def work(
        self, shard: int, jobs: Iterable[Job], admitted: Callable[[Sequence[Job]], None]
    ) -> None:
        for job in jobs:
            admitted([job])
            self.worked.append((job.model, shard))
            end(self._run_folder, job, Status.ACCEPTED)


class Accepting:
    """A queue whose worker accepts each job at once, unless it has a record."""

    def __init__(self, run_folder: RunFolder) -> None:
        self._run_folder, self._events = run_folder, list[tuple[str, JobDone]]()

    def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            outcome = Outcome(
                run="r", job_id=message.job, status=Status.ACCEPTED, row=2, keywords="ring"
            )
            done = self._run_folder.records.commit(outcome, None)
            self._events.append(("1", JobDone(done.job_id, done.status, 1.0)))

    def latest_event(self, run: str) -> str:
        return "0"

    def events(self, run: str, after: str, wait: float) -> list[tuple[str, JobDone]]:
        events, self._events = self._events, []
        return events


def end(run_folder: RunFolder, job: Job | BadRow, status: Status) -> None:
    outcome = Outcome(run="r", job_id=job.id, status=status, row=job.row, keywords=job.keywords)
    run_folder.records.commit(outcome, None)


def test_lines_are_no_older_than_a_record_that_another_shard_makes_again(tmp_path: Path) -> None:
    settings = load_settings(store=str(tmp_path / "out"), shard=1)
    run_folder = open_run_folder(settings, "r")
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("keywords\nred circle\nred circle\n", encoding="utf-8")
    opening = Opening()
    with opening.reading():
        spec = open_run(jobs, Overrides(), settings, run_folder, opening.stored)
    (job,) = run_folder.shards.read(spec.fingerprint, 1)
    end(run_folder, job, Status.FAILED)

    def before(call: Any) -> None:
        """The second shard ends before the first one removes the record."""
        if isinstance(call, partial) and call.func is forget:
            shards.work(2)

    dispatcher = cast(Dispatcher, Inline(run_folder, before))
    shards = Shards(run_folder, opening, [Status.FAILED], dispatcher, RunProgress("r", []))
    shards.work(1)
    tables = RunLines(run_folder, spec).tables("outcome")
    assert [table["outcome"].to_pylist() for table in tables] == [["accepted"], ["accepted"]]


def test_a_models_jobs_of_all_shards_are_done_before_the_next_models(tmp_path: Path) -> None:
    profile = tmp_path / "three.toml"
    named = "".join(f'[renderers.{name}]\nkind = "a1111"\nmodel = "{name}"\n' for name in "ab")
    profile.write_text(f'extends = "shapes"\n{named}', encoding="utf-8")
    settings = load_settings(
        store=str(tmp_path / "out"), home=tmp_path, shard=3, profile=str(profile)
    )
    run_folder = open_run_folder(settings, "r")
    jobs = tmp_path / "jobs.csv"
    models = ["b", "a", "", "b", "x", "a", "b", "b", "", "x", "a", "a"]
    rows = [f"ring {number},{model}\n" for number, model in enumerate(models)]
    jobs.write_text("keywords,model\n" + "".join(rows) + "ring 0,b\n", encoding="utf-8")
    opening = Opening()
    with opening.reading():
        spec = open_run(jobs, Overrides(), settings, run_folder, opening.stored)

    def run() -> list[tuple[str, int]]:
        inline, progress = Inline(run_folder, lambda _: None), RunProgress("r", [])
        shards = Shards(run_folder, opening, [], cast(Dispatcher, inline), progress)
        for model, visited in shards.passes():
            for shard, most in visited:
                assert shards.work(shard, model) <= most
        snapshot = progress.snapshot()
        done = snapshot.done + len(inline.worked)  # which the real one counts
        assert (done, snapshot.counts) == (len(rows) + 1, {Status.INVALID: 2})
        return inline.worked

    assert run() == [
        ("", 1), ("", 3), ("a", 1), ("a", 2), ("a", 4), ("a", 4), ("b", 1), ("b", 2), ("b", 3),
        ("b", 3),
    ]  # fmt: skip
    lines = RunLines(run_folder, spec)
    assert all(lines.has(shard) for shard in range(1, spec.shards + 1))
    assert run() == []


@pytest.mark.parametrize(
    ("budget", "again"),
    [(Budget(quota=5), 0), (Budget(quota=8), 3), (Budget(0.0), 0), (Budget(), 15)],
)
def test_a_row_that_no_limit_admits_again_keeps_its_record(
    tmp_path: Path, budget: Budget, again: int
) -> None:
    settings = load_settings(store=str(tmp_path / "out"), shard=20)
    run_folder = open_run_folder(settings, "r")
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("keywords\n" + "".join(f"ring {n}\n" for n in range(20)), encoding="utf-8")
    opening = Opening()
    with opening.reading():
        spec = open_run(jobs, Overrides(), settings, run_folder, opening.stored)
    for number, job in enumerate(run_folder.shards.read(spec.fingerprint, 1)):
        end(run_folder, job, Status.ACCEPTED if number < 5 else Status.BELOW_GATE)
    budget.accepted = 5
    queue, progress = cast(Queue, Accepting(run_folder)), RunProgress("r", [])
    dispatcher = Dispatcher(queue, run_folder, spec.fingerprint, 4, progress, budget)
    shards = Shards(run_folder, opening, [Status.BELOW_GATE], dispatcher, progress)
    with dispatcher:
        shards.work(1)
    counts = Counter(each.status for each in run_folder.records.outcomes(run_folder.records.ids()))
    assert counts == Counter({Status.ACCEPTED: 5 + again, Status.BELOW_GATE: 15 - again})
    assert bool(shards.stopped) == (again < 15)
