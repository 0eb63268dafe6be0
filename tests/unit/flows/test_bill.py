"""Costs are added up once for each job, and shown in money only where there is a price."""

from pathlib import Path

import numpy as np
import pytest

from flows.runs.costs import COLLECTIONS_SHOWN, OTHERS, Costs, Price
from flows.runs.open import open_run
from flows.runs.publish import publish, status_of
from pipeline.assemble.stores import open_run_folder
from pipeline.job import Job, Score
from pipeline.jobfile.reader import Overrides
from pipeline.record import CandidateRecord, Outcome, Status
from pipeline.records.run_folder import RunFolder
from pipeline.settings import load_settings

COLUMNS = "keywords,collection,steps\n"
ROWS = "red circle,brands,2\nblue star,,2\nred circle,brands,2\ngreen ring,brands,x\n"


def test_seconds_are_told_for_each_image_kept_and_each_accepted() -> None:
    costs = Costs()
    for status in (Status.ACCEPTED, Status.BELOW_GATE, Status.FAILED):
        costs.add(status, 2.0)
    figures = costs.figures()
    assert figures["device_seconds"] == 6.0
    assert figures["device_seconds_per_kept"] == 3.0
    assert figures["device_seconds_per_accepted"] == 6.0
    assert not [name for name in figures if "cost" in name or name == "currency"]


def test_nothing_kept_is_no_division() -> None:
    costs = Costs(Price(1.0, "EUR"))
    costs.add(Status.BLOCKED, 0.0)
    figures = costs.figures()
    assert (figures["device_seconds_per_kept"], figures["cost_per_kept"]) == (None, None)
    assert costs.sentence() == ""


def test_a_price_turns_seconds_into_money() -> None:
    costs = Costs(Price(3.6, "EUR"))
    costs.add(Status.ACCEPTED, 500.0)
    costs.add(Status.ACCEPTED, 500.0)
    figures = costs.figures()
    assert (figures["cost"], figures["cost_per_kept"], figures["currency"]) == (1.0, 0.5, "EUR")
    assert costs.sentence() == "1,000.0 device seconds, 500 for each image kept, 1.00 EUR"


def test_one_collection_needs_no_table() -> None:
    costs = Costs()
    costs.add(Status.ACCEPTED, 1.0, "brands")
    costs.add(Status.INVALID, 0.0)
    assert "by_collection" not in costs.summary()


def test_collections_are_told_apart_up_to_a_bound() -> None:
    costs = Costs()
    for number in range(COLLECTIONS_SHOWN + 50):
        costs.add(Status.ACCEPTED, 1.0, f"c{number:03}")
        costs.add(Status.ACCEPTED, 1.0, "c000")
    table = {line["collection"]: line for line in costs.summary()["by_collection"]}
    assert len(table) == COLLECTIONS_SHOWN + 1
    assert table["c000"]["kept"] == COLLECTIONS_SHOWN + 51
    assert table[OTHERS]["device_seconds"] == 50.0


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.csv"
    path.write_text(COLUMNS + ROWS, encoding="utf-8")
    return path


def commit(run_folder: RunFolder, job: Job) -> None:
    """An outcome that cost a second and a half."""
    run_folder.records.commit(
        Outcome(
            run=run_folder.run,
            job_id=job.id,
            status=Status.ACCEPTED,
            job=job,
            row=job.row,
            keywords=job.keywords,
            candidates=(CandidateRecord(index=0, seed=1, score=Score(raw=1, calibrated=1)),),
            winner=0,
            device_seconds={"renderer": 1.0, "judge": 0.5},
        ),
        np.zeros((16, 16, 3), np.float32),
    )


def test_summary_and_status_bill_equal_rows_once(tmp_path: Path, jobs: Path) -> None:
    settings = load_settings(store=str(tmp_path / "out"), gpu_hour_price=3600.0, currency="EUR")
    run_folder = open_run_folder(settings, "r")
    spec = open_run(jobs, Overrides(), settings, run_folder)
    for row in run_folder.shards.read(spec.fingerprint, 1):
        if isinstance(row, Job) and row.row != 4:
            commit(run_folder, row)
    summary = publish(run_folder, spec, 1.0, price=Price.of(settings))
    assert (summary["accepted"], summary["invalid"]) == (3, 1)
    assert (summary["device_seconds"], summary["cost"], summary["currency"]) == (3.0, 3.0, "EUR")
    each = {line["collection"]: line["device_seconds"] for line in summary["by_collection"]}
    assert each == {"": 1.5, "brands": 1.5}
    snapshot = status_of(settings, "r")
    assert all(snapshot[name] == summary[name] for name in snapshot.keys() & summary.keys())
    page = Path(summary["gallery"]).read_text(encoding="utf-8")
    assert "3.0 device seconds, 1.5 for each image kept, 3.00 EUR" in page
