"""A run whose first shards are worked on while the job file is still being read."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows.dispatch.dispatcher import Stopped, patiently
from flows.dispatch.opening import Opening
from flows.runs.open import open_run, reopened
from flows.runs.publish import finished, republish, status_of
from flows.runs.states import list_runs
from pipeline.errors import JobFileError, RunError, StoreError
from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides
from pipeline.record import RunSpec
from pipeline.records.run_folder import RunFolder
from pipeline.records.shards import ShardFiles
from pipeline.settings import Settings

SECONDS = 30.0


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.csv"
    path.write_text("keywords\n" + "".join(f"circle {n}\n" for n in range(5)), encoding="utf-8")
    return path


@pytest.fixture
def read(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> Iterator[Callable[[Opening], object]]:
    """Start reading the job file in another thread."""

    def reader(opening: Opening) -> RunSpec:
        with opening.reading():
            return open_run(jobs, Overrides(), settings, run_folder, opening.stored)

    with ThreadPoolExecutor(1) as pool:
        yield lambda opening: pool.submit(reader, opening)


def test_a_shard_is_there_before_the_file_is_read_to_its_end(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    seen = []

    def stored(spec: RunSpec) -> None:
        kept = run_folder.spec()
        assert (kept.rows, kept.fingerprint) == (0, spec.fingerprint)
        rows = run_folder.shards.read(spec.fingerprint, spec.shards)
        seen.append((spec.rows, [isinstance(row, Job) for row in rows]))

    spec = open_run(jobs, Overrides(), settings, run_folder, stored)
    assert seen == [(2, [True] * 2), (4, [True] * 2), (5, [True])]
    assert run_folder.spec() == spec


def test_the_shards_come_in_order_and_end_with_the_file(
    read: Callable[[Opening], object],
) -> None:
    opening = Opening()
    read(opening)
    assert opening.begun().shards >= 1
    assert list(opening.shards()) == [1, 2, 3]
    assert (opening.rows, opening.whole().rows) == (5, 5)


def test_an_error_of_the_reader_ends_everyone_who_waits_for_it(
    jobs: Path, read: Callable[[Opening], object]
) -> None:
    jobs.write_text("keywords\n", encoding="utf-8")
    opening = Opening()
    read(opening)
    for wait in (opening.begun, opening.whole, lambda: list(opening.shards())):
        with pytest.raises(RunError, match="holds no rows"):
            wait()


def test_an_error_amid_the_file_comes_after_the_shards_before_it() -> None:
    opening = Opening()
    spec = RunSpec(
        run="r", job_file="jobs.csv", job_file_digest="", rows=2, shards=1, profile={}, models={},
        created_at="", version="",
    )  # fmt: skip

    def read() -> None:
        with opening.reading():
            opening.stored(spec)
            raise JobFileError("row 3 cannot be read")

    with pytest.raises(JobFileError):
        read()
    shards = opening.shards()
    assert next(shards) == 1
    with pytest.raises(JobFileError):
        next(shards)


def test_a_reader_that_is_stopped_leaves_a_run_that_wants_its_file_again(
    jobs: Path, read: Callable[[Opening], object], settings: Settings, run_folder: RunFolder
) -> None:
    opening = Opening()
    opening.stop()
    read(opening)
    with pytest.raises(Stopped):
        opening.whole()
    republish(settings, "r")
    assert finished(run_folder, run_folder.spec(), ()) is None, "even with its gallery built"
    (line,) = list_runs(settings, everything=False)["runs"]
    assert line["state"] == "interrupted"
    with pytest.raises(RunError, match=r"jobs\.csv was not read to its end"):
        reopened(run_folder)
    spec = open_run(jobs, Overrides(), settings, run_folder)
    assert (spec.rows, reopened(run_folder)) == (5, spec)


def test_a_run_whose_file_is_being_read_counts_the_rows_read_so_far(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    seen = []

    def stored(_: RunSpec) -> None:
        status = status_of(settings, "r")
        seen.append((status["rows"], status["left"], status["invalid"]))

    jobs.write_text("keywords,steps\na,x\nb,2\nc,y\nd,2\n", encoding="utf-8")
    open_run(jobs, Overrides(), settings, run_folder, stored)
    assert seen == [(2, 1, 1), (4, 2, 2)]


def test_other_shards_are_not_cut_while_the_same_file_is_read_again(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    opening = Opening()

    def stored(spec: RunSpec) -> None:
        opening.stored(spec)
        opening.stop()

    with pytest.raises(Stopped):
        open_run(jobs, Overrides(), settings, run_folder, stored)
    larger = settings.model_copy(update={"shard": 5})
    assert open_run(jobs, Overrides(), larger, run_folder).shards == 3


def test_a_file_that_cannot_be_read_further_leaves_the_run_as_it_was(
    jobs: Path, settings: Settings, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_run(jobs, Overrides(), settings, run_folder)

    def broken(*_: object, **_named: object) -> Iterator[Job | BadRow]:
        yield from run_folder.shards.read(before.fingerprint, 1)
        raise JobFileError("jobs.csv: the rest cannot be read")

    monkeypatch.setattr("flows.runs.open.open_jobs", broken)
    with pytest.raises(JobFileError):
        open_run(jobs, Overrides(candidates=9), settings, run_folder)
    assert reopened(run_folder) == before
    assert len(run_folder.shards.read(before.fingerprint, 3)) == 1


def test_a_file_that_is_submitted_meanwhile_ends_the_one_before(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    def stored(_: RunSpec) -> None:
        open_run(jobs, Overrides(candidates=9), settings, run_folder)

    with pytest.raises(RunError, match="opened with another file or profile meanwhile"):
        open_run(jobs, Overrides(), settings, run_folder, stored)
    spec = reopened(run_folder)
    assert spec.overrides["candidates"] == 9
    assert len(run_folder.shards.read(spec.fingerprint, 3)) == 1


def test_a_store_that_refuses_for_a_moment_is_waited_for(
    jobs: Path, settings: Settings, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, refusals = ShardFiles.write, iter([True, False, True])

    def refusing(shards: ShardFiles, *row: Any) -> None:
        if next(refusals, False):
            raise StoreError("403")
        write(shards, *row)

    monkeypatch.setattr(ShardFiles, "write", refusing)
    waiting = partial(patiently, seconds=SECONDS)
    spec = open_run(jobs, Overrides(), settings, run_folder, lambda _: None, waiting)
    assert (spec.rows, reopened(run_folder)) == (5, spec)
