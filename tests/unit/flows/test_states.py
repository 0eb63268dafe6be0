"""Which runs there are and how each stands."""

import os
import time
from pathlib import Path

import pytest

from flows.dispatch import heartbeat
from flows.dispatch.heartbeat import STALE, Heartbeat
from flows.dispatch.progress import ProgressCounter
from flows.runs.open import forget, open_run, to_retry
from flows.runs.publish import latest_run, publish, status_of
from flows.runs.states import SHOWN, list_runs
from pipeline.assemble.stores import open_run_folder
from pipeline.job import Job
from pipeline.jobfile.reader import Overrides
from pipeline.record import Outcome, RunSpec, Status
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(store=str(tmp_path / "out"))


def opened(settings: Settings, name: str, *, rows: int = 3, done: int = 0) -> RunFolder:
    """The books of a run whose first `done` jobs failed."""
    file = Path(settings.store).parent / f"{name}.csv"
    lines = "".join(f"red circle {number}\n" for number in range(rows))
    file.write_text(f"keywords\n{lines}", encoding="utf-8")
    run_folder = open_run_folder(settings, name)
    fail(run_folder, open_run(file, Overrides(), settings, run_folder), done)
    return run_folder


def fail(run_folder: RunFolder, spec: RunSpec, count: int) -> None:
    for row in run_folder.shards.read(spec.fingerprint, 1)[:count]:
        assert isinstance(row, Job)
        failed = Outcome(
            run=run_folder.run, job_id=row.id, status=Status.FAILED, job=row, row=row.row,
            keywords=row.keywords,
        )  # fmt: skip
        run_folder.records.commit(failed, None)


def test_a_run_is_done_open_cancelled_stopped_or_damaged(settings: Settings) -> None:
    done = opened(settings, "done", done=3)
    publish(done, done.spec(), 1.0)
    opened(settings, "interrupted", done=2)
    opened(settings, "cancelled").request_cancel()
    stopped = opened(settings, "stopped", done=1)
    publish(stopped, stopped.spec(), 1.0, stopped="budget")
    damaged = opened(settings, "damaged", done=1)
    damaged.write("run.json", b"[]", "application/json")
    counts = opened(settings, "counts")
    counts.write("summary.json", b"[1]", "application/json")
    found = {line["run"]: line for line in list_runs(settings, everything=True)["runs"]}
    states = {"done", "interrupted", "cancelled", "stopped", "damaged"}
    assert {name: found[name]["state"] for name in states} == {name: name for name in states}
    assert found["counts"]["state"] == "damaged"
    assert [found[name]["done"] for name in ("done", "interrupted", "stopped")] == [3, 2, 1]
    assert found["done"]["outcomes"] == {"failed": 3}
    assert found["interrupted"]["file"] == "interrupted.csv"
    assert [status_of(settings, name)["state"] for name in ("done", "stopped")] == [
        "done", "stopped",
    ]  # fmt: skip


def test_the_latest_come_first_and_the_rest_is_counted(settings: Settings) -> None:
    for number in range(SHOWN + 2):
        opened(settings, f"r{number}", rows=1)
        time.sleep(0.002)
    opened(settings, "damaged").write("run.json", b"{}", "application/json")
    report = list_runs(settings, everything=False)
    names = [f"r{number}" for number in reversed(range(SHOWN + 2))]
    assert ([line["run"] for line in report["runs"]], report["more"]) == (names[:SHOWN], 3)
    everything = list_runs(settings, everything=True)
    assert [line["run"] for line in everything["runs"]] == [*names, "damaged"]
    assert latest_run(settings) == names[0]


def test_a_run_that_somebody_works_on_says_how_it_goes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "EVERY", 0.02)
    run_folder = opened(settings, "r", rows=10, done=4)
    now = 0.0
    tally = ProgressCounter("r", lambda: now)
    tally.expect(10, whole=True)
    tally.snapshot()
    now = 30.0
    for _ in range(4):
        tally.count(Status.FAILED)
    with Heartbeat(run_folder, tally.snapshot):
        while not (progress := run_folder.progress(STALE)) or not progress.done:
            time.sleep(0.01)
        status = status_of(settings, "r")
        assert (status["state"], status["left"]) == ("running", 6)
        assert (status["jobs_per_minute"], status["seconds_left"]) == (8.0, 45)
        assert list_runs(settings, everything=False)["runs"][0]["done"] == 4
    assert status_of(settings, "r")["state"] == "interrupted"


def test_what_a_killed_process_said_last_is_not_believed_for_long(settings: Settings) -> None:
    run_folder = opened(settings, "r")
    run_folder.write_progress(heartbeat.progress_of(ProgressCounter("r").snapshot()))
    assert status_of(settings, "r")["state"] == "running"
    said = Path(run_folder.address("progress.json"))
    os.utime(said, (time.time() - STALE - 5,) * 2)
    assert status_of(settings, "r")["state"] == "interrupted"


def test_a_run_that_is_taken_apart_to_do_rows_again_is_not_done(settings: Settings) -> None:
    run_folder = opened(settings, "r", done=3)
    spec = run_folder.spec()
    publish(run_folder, spec, 1.0)
    assert to_retry(run_folder, spec, {Status.FAILED}, records=3) == {Status.FAILED}
    forget(run_folder, run_folder.records.ids(), {Status.FAILED})
    (line,) = list_runs(settings, everything=False)["runs"]
    assert (line["state"], line["done"]) == ("interrupted", 0)
