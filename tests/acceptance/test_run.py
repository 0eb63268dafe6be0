"""The main job, embedded, through the command line: one small batch, looked at from all sides."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.stack.embedded import private_redis
from tests.harness.commandline import answer, begin, pressrun, pressrun_here
from tests.harness.monitored import started_worker, wait
from workers.queue.messages import Queue

pytestmark = pytest.mark.slow

ROWS = 40
KNOWLEDGE = Path("examples/shapes/knowledge/brands.jsonl").resolve()
JOBS = """id,keywords,candidates,seed,meta.product
plain,red circle on white,2,,
brand,Solano Surf badge,4,,scale
style,{blue|green} star on black,2,7,
broken,green heart,many,,
again,red circle on white,2,,
again,red circle on white,2,,
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job file and an ingested knowledge base."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "jobs.csv").write_text(JOBS, encoding="utf-8")
    report = answer(
        pressrun_here("ingest", str(KNOWLEDGE), "--collection", "b", "--json", cwd=folder)
    )
    assert report["added"] == len(KNOWLEDGE.read_text(encoding="utf-8").splitlines())
    return folder


@pytest.fixture(scope="module")
def services(workdir: Path, prefect_server: str) -> Iterator[dict[str, str]]:
    """Settings of runs that find all services at work: Redis, Prefect's server, a worker."""
    with private_redis() as url:
        settings = {"PRESSRUN_REDIS_URL": url, "PREFECT_API_URL": prefect_server}
        queue = Queue.connect(url)
        with started_worker(workdir, settings):
            wait(queue.workers)
            yield settings


@pytest.fixture(scope="module")
def summary(workdir: Path) -> dict[str, Any]:
    """What the first run of the job file answered."""
    done = pressrun(
        "run", "jobs.csv", "--run", "first", "--collection", "b", "--threshold", "0.2", "--json",
        cwd=workdir,
    )  # fmt: skip
    return answer(done)


@pytest.fixture(scope="module")
def lines(workdir: Path, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The run's manifest."""
    return list(pq.read_table(Path(workdir, summary["folder"], "manifest.parquet")).to_pylist())


def test_every_row_has_one_outcome(summary: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    kinds = ("accepted", "below_gate", "invalid", "blocked", "failed")
    assert summary["rows"] == sum(summary[kind] for kind in kinds) == 6
    assert (summary["invalid"], summary["failed"]) == (1, 0)
    assert [line["row"] for line in lines] == [2, 3, 4, 5, 6, 7]
    assert lines[4]["job_id"] == lines[5]["job_id"]


def test_a_bad_row_says_where_and_why(lines: list[dict[str, Any]]) -> None:
    bad = lines[3]
    assert (bad["row"], bad["outcome"], bad["image"]) == (5, "invalid", None)
    assert "candidates" in bad["reason"]
    assert "many" in bad["reason"]


def test_a_record_is_a_receipt(
    workdir: Path, summary: dict[str, Any], lines: list[dict[str, Any]]
) -> None:
    folder, brand = Path(workdir, summary["folder"]), lines[1]
    record = json.loads((folder / "records" / f"{brand['job_id']}.json").read_text())
    texts = [passage["text"] for passage in record["context"]["passages"]]
    assert any("Solano Surf" in text for text in texts)
    assert all(passage["source"] for passage in record["context"]["passages"])
    assert record["job"]["meta"] == {"product": "scale"}
    assert {"writer", "renderer", "judge"} <= set(record["models"])
    assert {"writer", "renderer", "judge"} <= set(record["device_seconds"])
    assert len(record["candidates"]) == 4
    best = max(c["score"]["calibrated"] for c in record["candidates"])
    assert brand["score"] == best
    assert brand["seed"] == record["job"]["seed"] + record["winner"]


def test_an_image_says_how_it_was_made(
    workdir: Path, summary: dict[str, Any], lines: list[dict[str, Any]]
) -> None:
    kept = next(line for line in lines if line["image"])
    with Image.open(Path(workdir, summary["folder"], kept["image"])) as image:
        assert image.size == (64, 64)
        assert kept["prompt"] in image.info["parameters"]
        assert f"Seed: {kept['seed']}" in image.info["parameters"]
        assert "trainedAlgorithmicMedia" in str(image.info)


def test_the_gallery_is_there(workdir: Path, summary: dict[str, Any]) -> None:
    page = Path(workdir, summary["gallery"])
    assert "Solano Surf" in page.read_text(encoding="utf-8")


def test_a_winner_can_be_made_again(
    workdir: Path, summary: dict[str, Any], lines: list[dict[str, Any]]
) -> None:
    record = f"{summary['folder']}/records/{lines[1]['job_id']}.json"
    report = answer(pressrun_here("reproduce", record, "--out", "again.png", "--json", cwd=workdir))
    assert report["equal"]
    assert report["difference"] <= 2 / 255
    assert (workdir / "again.png").is_file()


def test_status_counts_from_the_records(workdir: Path, summary: dict[str, Any]) -> None:
    for arguments in (("status", "first"), ("status",)):
        report = answer(pressrun_here(*arguments, "--json", cwd=workdir))
        assert {name: report.pop(name) for name in ("state", "file", "left")} == {
            "state": "done", "file": "jobs.csv", "left": 0
        }  # fmt: skip
        assert report.pop("opened")
        assert report == {name: summary[name] for name in report}


@pytest.mark.parametrize("form", ["jsonl", "webdataset"])
def test_a_run_is_exported(workdir: Path, summary: dict[str, Any], form: str) -> None:
    words = ("export", "first", "--to", form, "--status", "accepted,below_gate", "--json")
    report = answer(pressrun_here(*words, cwd=workdir))
    assert report["jobs"] == summary["accepted"] + summary["below_gate"] - 1, "two rows are equal"
    assert (workdir / report["path"]).exists()
    done = pressrun_here("export", "first", "--to", form, "--out", "jobs.csv", cwd=workdir)
    assert (done.returncode, "jobs.csv" in done.stderr) == (1, True)
    assert (workdir / "jobs.csv").read_text(encoding="utf-8") == JOBS


def test_a_pilot_runs_some_rows_and_keeps_nothing(workdir: Path) -> None:
    before = {path for path in workdir.rglob("*") if ".pressrun" not in path.parts}
    words = ("check", "jobs.csv", "--collection", "b", "--pilot", "2", "--json")
    report = answer(pressrun_here(*words, cwd=workdir, settings={"PRESSRUN_GPU_HOUR_PRICE": "2"}))
    assert (report["jobs"], report["pilot_jobs"]) == (4, 2)
    estimates = {line["of"]: line for line in report["estimates"]}
    assert set(estimates) == {"device_seconds", "wall_seconds", "accepted", "cost_in_USD"}
    device = estimates["device_seconds"]
    assert 0 < report["pilot_device_seconds"] < device["expected"]
    assert device["low"] <= device["expected"] <= device["high"]
    assert {path for path in workdir.rglob("*") if ".pressrun" not in path.parts} == before


def test_mistakes_get_one_clear_line(workdir: Path) -> None:
    for arguments, complaint in (
        (("run", "nothere.csv"), "nothere.csv"),
        (("run", "jobs.csv", "--collection", "nope"), "nope"),
        (("run", "jobs.csv", "--profile", "nope"), "nope"),
        (("run", "jobs.csv", "--run", "../up"), "../up"),
        (("status", "nope"), "nope"),
        (("reproduce", "first/nope"), "nope"),
    ):
        done = pressrun_here(*arguments, "--json", cwd=workdir)
        assert done.returncode in (1, 2)
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr


def test_an_edited_file_renders_only_what_changed(
    workdir: Path, summary: dict[str, Any], services: dict[str, str]
) -> None:
    records = Path(workdir, summary["folder"], "records")
    before = {path.name: path.stat().st_mtime_ns for path in records.iterdir()}
    edited = JOBS.replace("many", "1").replace("{blue|green} star", "yellow star")
    (workdir / "edited.csv").write_text(edited, encoding="utf-8")
    words = ["run", "edited.csv", "--run", "first", "--collection", "b", "--threshold", "0.2"]
    refused = pressrun_here(*words, cwd=workdir, settings=services)
    assert (refused.returncode, "opened with another file, jobs.csv" in refused.stderr) == (1, True)
    done = pressrun_here(*words, "--yes", "--json", cwd=workdir, settings=services)
    assert answer(done)["invalid"] == 0
    after = {path.name: path.stat().st_mtime_ns for path in records.iterdir()}
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2


def test_a_cancelled_run_is_resumed_and_asked_for_outcomes_are_done_again(
    workdir: Path, services: dict[str, str]
) -> None:
    (workdir / "strict.csv").write_text("keywords,threshold\nred circle,1\nblue star,0\n")
    first = answer(pressrun_here("run", "strict.csv", "--json", cwd=workdir, settings=services))
    assert (first["below_gate"], first["accepted"], first["lost"]) == (1, 1, 0)
    records = workdir / "out" / "runs" / "strict" / "records"
    before = {path.name: path.stat().st_mtime_ns for path in records.iterdir()}
    answer(pressrun_here("cancel", "strict", "--json", cwd=workdir, settings=services))
    again = answer(
        pressrun_here(
            "resume", "strict", "--retry", "below_gate", "--json", cwd=workdir, settings=services
        )
    )
    assert again["below_gate"] == 1
    after = {path.name: path.stat().st_mtime_ns for path in records.iterdir()}
    assert sum(after[name] == before[name] for name in before) == 1
    report = answer(pressrun_here("reconcile", "strict", "--json", cwd=workdir, settings=services))
    assert (report["lost"], report["unexpected"]) == (0, 0)


def test_an_interrupted_run_goes_on_where_it_was(workdir: Path, services: dict[str, str]) -> None:
    rows = "".join(f"red circle number {n},4\n" for n in range(ROWS))
    (workdir / "many.csv").write_text("keywords,steps\n" + rows, encoding="utf-8")
    words = ["run", "many.csv", "--run", "many", "--candidates", "1", "--json"]
    records = workdir / "out" / "runs" / "many" / "records"
    process = begin(*words, cwd=workdir, settings=services)
    while not (records.is_dir() and any(records.iterdir())):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "pressrun resume many" in complaint
    before = {path.name: path.stat().st_mtime_ns for path in records.iterdir()}
    assert len(before) < ROWS
    summary = answer(pressrun_here(*words, cwd=workdir, settings=services))
    assert summary["rows"] == sum(summary[kind] for kind in ("accepted", "below_gate")) == ROWS
    after = {path.name: path.stat().st_mtime_ns for path in records.iterdir()}
    assert {name: after[name] for name in before} == before
