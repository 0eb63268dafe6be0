"""Records, specs and parts that say something of others do no harm, and are told."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import reconcile as proving
from flows.runs.open import forget, open_run
from flows.runs.reconcile import reconcile
from pipeline.assemble.stores import open_run_folder
from pipeline.errors import RunError
from pipeline.job import Job, Score
from pipeline.jobfile.reader import Overrides
from pipeline.record import CandidateRecord, Outcome, RunSpec, Status
from pipeline.records.run_folder import RunFolder, run_names
from pipeline.settings import Settings, load_settings

Change = Callable[[dict[str, Any]], Any]

RECORDS: dict[str, Change] = {
    "a file of the run as the image": lambda record: record["image"].update(path="run.json"),
    "an image outside": lambda record: record["image"].update(path="../../x.png"),
    "another job's image": lambda record: record["image"].update(
        path=f"images/{'f' * 24}-{'0' * 12}.png"
    ),
    "another job": lambda record: record.update(job_id="f" * 24),
    "another run": lambda record: record.update(run="other"),
    "a job of another id": lambda record: record["job"].update(id="f" * 24),
    "a job id that is a path": lambda record: record.update(job_id="../run"),
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PRESSRUN_STORE", str(tmp_path / "out"))
    return load_settings()


@pytest.fixture
def run_folder(settings: Settings) -> RunFolder:
    return open_run_folder(settings, "r")


@pytest.fixture
def spec(settings: Settings, run_folder: RunFolder, tmp_path: Path) -> RunSpec:
    """A run of one job, which was accepted."""
    file = tmp_path / "jobs.csv"
    file.write_text("keywords\nred circle\n", encoding="utf-8")
    spec = open_run(file, Overrides(), settings, run_folder)
    (job,) = run_folder.shards.read(spec.fingerprint, 1)
    assert isinstance(job, Job)
    seen = CandidateRecord(index=0, seed=job.seed, score=Score(raw=1, calibrated=1))
    outcome = Outcome(
        run="r", job_id=job.id, status=Status.ACCEPTED, job=job, row=job.row, winner=0,
        keywords=job.keywords, candidates=(seen,),
    )  # fmt: skip
    run_folder.records.commit(outcome, np.zeros((16, 16, 3), np.float32))
    return spec


def tamper(run_folder: RunFolder, name: str, change: Change) -> None:
    document = json.loads(run_folder.blob(name))
    change(document)
    run_folder.write(name, json.dumps(document).encode(), "application/json")


@pytest.mark.parametrize("change", RECORDS.values(), ids=RECORDS)
def test_a_record_of_something_else_is_an_alarm_and_removes_nothing(
    run_folder: RunFolder, spec: RunSpec, change: Change
) -> None:
    (job_id,) = run_folder.records.ids()
    tamper(run_folder, f"records/{job_id}.json", change)
    before = list(run_folder.store.keys("runs/"))
    report = reconcile(run_folder, spec, read_images=True, safe_age=0)
    assert (report.unexpected, report.lost) == (1, 0), report
    with pytest.raises(RunError):
        forget(run_folder, [job_id], {Status.ACCEPTED})
    assert list(run_folder.store.keys("runs/")) == before


def test_a_spec_of_another_run_is_refused(run_folder: RunFolder, spec: RunSpec) -> None:
    tamper(run_folder, "run.json", lambda document: document.update(run="other"))
    with pytest.raises(RunError, match="of run 'other'"):
        run_folder.spec()


def test_a_file_that_belongs_to_no_job_is_an_alarm(run_folder: RunFolder, spec: RunSpec) -> None:
    for folder in ("records", "images"):
        Path(run_folder.address(folder), "a b.json").write_text("{}", encoding="utf-8")
    report = reconcile(run_folder, spec, read_images=True, safe_age=0)
    assert (report.unexpected, report.orphans_removed) == (2, 0)


def test_a_folder_that_is_no_run_is_passed_over(run_folder: RunFolder, spec: RunSpec) -> None:
    odd = Path(run_folder.store.address("runs"), "Not a run")
    odd.mkdir()
    (odd / "run.json").write_text("{}", encoding="utf-8")
    assert list(run_names(run_folder.store)) == ["r"]


def test_the_scheduled_proof_goes_on_with_the_other_runs(
    run_folder: RunFolder, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run.json", *(part.key[7:] for part in run_folder.listing("jobs/"))):
        RunFolder(run_folder.store, "s").write(
            name, run_folder.blob(name), "application/octet-stream"
        )
    tamper(RunFolder(run_folder.store, "s"), "run.json", lambda document: document.update(run="s"))
    tamper(run_folder, "run.json", lambda document: document.update(run="s"))
    told: list[list[dict[str, Any]]] = []
    monkeypatch.setattr(proving, "runs_in_work", lambda: {"No run"})
    monkeypatch.setattr(proving, "get_run_logger", logging.getLogger)
    monkeypatch.setattr(proving, "create_table_artifact", lambda table, **_: told.append(table))
    with pytest.raises(RunError, match="records of No run, r do not balance"):
        proving.reconcile_runs.fn()
    assert [(report["run"], report["sound"]) for report in told[0]] == [
        ("No run", False),
        ("r", False),
        ("s", True),
    ]
