"""A run whose first shards are worked on while the job file is still being read."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.dispatch.dispatcher import Stopped
from flows.dispatch.opening import Opening
from flows.runs.open import open_run, reopened
from flows.runs.publish import finished
from flows.runs.states import list_runs
from pipeline.assemble import open_run_folder
from pipeline.errors import JobFileError, RunError
from pipeline.job import Job, RunSpec
from pipeline.jobfile.reader import Overrides
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings, load_settings

SECONDS = 30.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(store=str(tmp_path / "out"), shard=2)


@pytest.fixture
def run_folder(settings: Settings) -> RunFolder:
    return open_run_folder(settings, "r")


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
    assert finished(run_folder, run_folder.spec(), ()) is None
    (line,) = list_runs(settings, everything=False)["runs"]
    assert line["state"] == "interrupted"
    with pytest.raises(RunError, match=r"jobs\.csv was not read to its end"):
        reopened(run_folder)
    spec = open_run(jobs, Overrides(), settings, run_folder)
    assert (spec.rows, reopened(run_folder)) == (5, spec)
