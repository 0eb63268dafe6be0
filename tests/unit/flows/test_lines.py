"""The lines of a run's shards: written once they are whole, and never older than the records."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.runs.lines import RunLines
from flows.runs.open import forget, open_run, to_retry
from flows.runs.publish import publish
from flows.runs.reconcile import reconcile
from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides
from pipeline.record import Outcome, RunSpec, Status
from pipeline.records.records import RunRecords
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings


@pytest.fixture
def spec(jobs: Path, settings: Settings, run_folder: RunFolder) -> RunSpec:
    return open_run(jobs, Overrides(), settings, run_folder)


@pytest.fixture
def lines(run_folder: RunFolder, spec: RunSpec) -> RunLines:
    return RunLines(run_folder, spec)


def fail(run_folder: RunFolder, spec: RunSpec, *, status: Status = Status.FAILED) -> None:
    """Commit an outcome for each job of the run that has none."""
    for shard in range(1, spec.shards + 1):
        for row in run_folder.shards.read(spec.fingerprint, shard):
            if not isinstance(row, BadRow):
                outcome = Outcome(
                    run="r", job_id=row.id, status=status, job=row, row=row.row,
                    keywords=row.keywords,
                )  # fmt: skip
                run_folder.records.commit(outcome, None)


def outcomes(lines: RunLines) -> list[str]:
    return [name for table in lines.tables("outcome") for name in table["outcome"].to_pylist()]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids of the records that were read."""
    ids, before = list[str](), RunRecords.outcome

    def outcome(records: RunRecords, job_id: str) -> Outcome | None:
        ids.append(job_id)
        return before(records, job_id)

    monkeypatch.setattr(RunRecords, "outcome", outcome)
    return ids


def test_a_shard_has_no_lines_before_each_row_has_its_record(
    run_folder: RunFolder, spec: RunSpec, lines: RunLines
) -> None:
    lines.write(1)
    assert not lines.has(1)
    assert outcomes(lines) == ["invalid"]
    fail(run_folder, spec)
    lines.write(1)
    assert lines.has(1)
    assert not lines.has(2)
    assert outcomes(lines) == ["failed", "invalid", "failed"]


def test_records_are_not_read_where_lines_are_stored(
    run_folder: RunFolder, spec: RunSpec, lines: RunLines, read: list[str]
) -> None:
    fail(run_folder, spec)
    for shard in (1, 2):
        lines.write(shard)
    assert len(read) == len(set(read)) == 3
    read.clear()
    summary = publish(run_folder, spec, 1.0)
    assert (summary["failed"], summary["invalid"], read) == (2, 1, [])


def test_rows_without_a_record_are_not_looked_for(
    run_folder: RunFolder, spec: RunSpec, lines: RunLines, read: list[str]
) -> None:
    assert outcomes(lines) == ["invalid"]
    assert read == list(run_folder.records.ids())


def test_rows_that_are_done_again_have_no_lines_meanwhile(
    run_folder: RunFolder, spec: RunSpec, lines: RunLines
) -> None:
    fail(run_folder, spec)
    for shard in (1, 2):
        lines.write(shard)
    again = to_retry(run_folder, spec, {Status.FAILED, Status.BLOCKED}, records=3)
    assert not lines.has(1)
    assert not lines.has(2)
    ids = [row.id for row in run_folder.shards.read(spec.fingerprint, 2) if isinstance(row, Job)]
    forget(run_folder, ids, again)
    assert outcomes(lines) == ["failed", "invalid"]
    fail(run_folder, spec, status=Status.BLOCKED)
    assert outcomes(lines) == ["failed", "invalid", "blocked"]


def test_lines_of_a_record_that_vanished_go_when_the_run_is_reconciled(
    run_folder: RunFolder, spec: RunSpec, lines: RunLines
) -> None:
    fail(run_folder, spec)
    for shard in (1, 2):
        lines.write(shard)
    (job,) = run_folder.shards.read(spec.fingerprint, 2)
    run_folder.records.remove(job.id)
    assert reconcile(run_folder, spec, read_images=False).lost == 1
    assert (lines.has(1), lines.has(2)) == (True, False)
    assert outcomes(lines) == ["failed", "invalid"]


def test_another_file_drops_the_lines_of_the_one_before(
    jobs: Path, settings: Settings, run_folder: RunFolder, spec: RunSpec, lines: RunLines
) -> None:
    fail(run_folder, spec)
    lines.write(1)
    jobs.write_text("keywords\nred circle\n", encoding="utf-8")
    open_run(jobs, Overrides(), settings, run_folder)
    assert not lines.has(1)


def test_damaged_lines_are_made_again_from_the_records(
    run_folder: RunFolder, spec: RunSpec, lines: RunLines
) -> None:
    fail(run_folder, spec)
    lines.write(1)
    name = f"lines/{spec.fingerprint}/shard-00001.parquet"
    run_folder.write(name, b"PAR1 and no more", "application/vnd.apache.parquet")
    assert outcomes(lines) == ["failed", "invalid", "failed"]


def test_a_damaged_record_leaves_its_shard_without_lines(
    run_folder: RunFolder, spec: RunSpec, lines: RunLines
) -> None:
    fail(run_folder, spec)
    (job,) = run_folder.shards.read(spec.fingerprint, 2)
    run_folder.write(f"records/{job.id}.json", b"{", "application/json")
    lines.write(2)
    assert not lines.has(2)
