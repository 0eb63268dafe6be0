"""The operating side against a real Prefect server: deployments, inbox, cancelling, the books.

One server, one Redis, one `pressrun serve` and stand-in workers serve all tests of this module.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import inbox as inboxes
from flows.inbox import inbox
from flows.ingest import ingest
from flows.reconcile import reconcile_runs
from flows.retention import remove_runs
from flows.runs.open import open_run
from flows.runs.publish import publish
from flows.runs.reconcile import reconcile_run
from flows.stack.environment import anchored, environment
from flows.webhook import SIGNATURE, signature
from pipeline.assemble.stores import open_run_folder, open_store
from pipeline.errors import RunError
from pipeline.job import Score
from pipeline.jobfile.reader import Overrides
from pipeline.record import CandidateRecord, Outcome, RunSpec, Status
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings, load_settings
from tests.harness import connected
from tests.harness.commandline import begin
from tests.harness.connected import Workdir
from tests.harness.jobs import write_jobs
from tests.harness.prefect_server import ENDED, Server, api_client, free_port, prefect
from tests.harness.servers import moto_s3
from tests.harness.web_server import listening
from workers.queue.messages import Queue

pytestmark = pytest.mark.slow

BUCKET, SECRET = "drop", "a-secret-of-the-tests"
LIMIT = 120.0
ROWS = 120
IDLE = 5.0


@pytest.fixture(scope="module")
def hook() -> Iterator[tuple[str, list[Any]]]:
    """The address of the webhook, and what it was sent."""
    with listening(204) as (url, heard):
        yield url, heard


@pytest.fixture(scope="module")
def server(hook: tuple[str, list[Any]]) -> Iterator[Server]:
    """All that a team would run, in a folder with a short path: a socket's is bounded."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pressrun-"))
        url, _ = hook
        port, s3 = free_port(), stack.enter_context(moto_s3(BUCKET))
        workdir = Workdir(
            Path(folder),
            {
                "PREFECT_HOME": f"{folder}/prefect",
                "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_WORKER_QUERY_SECONDS": "1",
                "PRESSRUN_CONCURRENCY": "2",
                "STAND_IN_SECONDS": "0.1",
                "PRESSRUN_INBOX": "inbox",
                "PRESSRUN_S3_ENDPOINT_URL": s3.endpoint,
                "PRESSRUN_WEBHOOK": url,
                "PRESSRUN_WEBHOOK_SECRET": SECRET,
                **s3.environment(),
            },
        )
        server = stack.enter_context(prefect(workdir, port))
        stack.enter_context(connected.redis(workdir))
        stack.enter_context(connected.workers(workdir, 1))
        server.deploy()
        yield server


@pytest.fixture
def settings(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """What a flow that runs in this process is told."""
    workdir = server.workdir.folder
    (workdir / "inbox").mkdir(exist_ok=True)
    monkeypatch.setenv("PRESSRUN_INBOX", str(workdir / "inbox"))
    monkeypatch.setenv("PRESSRUN_STORE", str(workdir / "out"))
    monkeypatch.setenv("PRESSRUN_REDIS_URL", server.workdir.url)
    for name in ("PRESSRUN_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, server.workdir.settings[name])
    with temporary_settings({PREFECT_API_URL: server.workdir.settings["PREFECT_API_URL"]}):
        yield load_settings()


@pytest.fixture(scope="module")
def served(server: Server) -> Iterator[None]:
    """A Prefect worker runs what is started."""
    with connected.running(server.workdir.start(sys.executable, "-m", "flows.cli", "serve")):
        yield


def wait(look: Callable[[], Any], server: Server) -> Any:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + LIMIT
    while not (found := look()):
        assert time.monotonic() < deadline, server.workdir.complaints()
        time.sleep(0.1)
    return found


def ended(server: Server, flow_run: str) -> str:
    """How a flow run ends."""
    wait(lambda: server.state(flow_run) in ENDED, server)
    return server.state(flow_run)


def found_at(server: Server, what: str) -> list[dict[str, Any]]:
    """All that the server knows of some kind."""
    api = api_client(server.workdir.settings["PREFECT_API_URL"])
    answer: list[dict[str, Any]] = api.post(f"/{what}/filter", json={}).json()
    return answer


def flow_runs(server: Server, run: str) -> list[dict[str, Any]]:
    return [each for each in found_at(server, "flow_runs") if each["parameters"].get("run") == run]


def test_a_flow_learns_how_many_jobs_its_workers_execute_at_a_time(server: Server) -> None:
    wait(lambda: Queue.connect(server.workdir.url).places() == 2, server)


def test_every_deployment_has_a_form_and_a_limit(server: Server) -> None:
    found = {each["name"]: each for each in found_at(server, "deployments")}
    assert set(found) == {"generate-batch", "inbox", "ingest", "reconcile", "retention"}
    for deployment in found.values():
        assert deployment["global_concurrency_limit"]["limit"] >= 1
        schema = deployment["parameter_openapi_schema"]
        for name, parameter in schema["properties"].items():
            assert parameter.get("description"), f"{deployment['name']}: {name}"
    form = found["generate-batch"]["parameter_openapi_schema"]
    assert "below_gate" in form["definitions"]["Status"]["enum"]
    assert found["retention"]["parameter_openapi_schema"]["properties"]["dry_run"]["default"]
    (looks,) = found["inbox"]["schedules"]
    assert (looks["active"], looks["schedule"]["cron"]) == (True, "* * * * *")
    assert looks["schedule"]["timezone"] == "UTC"


@pytest.mark.usefixtures("served")
def test_a_run_cancelled_in_prefect_stops_and_goes_on(
    server: Server, settings: Settings, hook: tuple[str, list[Any]]
) -> None:
    write_jobs(server.workdir.folder / "jobs.csv", ROWS)
    asked = {"run": "stopped", "jobs": str(server.workdir.folder / "jobs.csv")}
    flow_run = server.start(asked)
    records = Path(settings.store, "runs/stopped/records")
    wait(lambda: records.exists() and len(list(records.iterdir())) > 10, server)
    server.cancel(flow_run)
    time.sleep(IDLE)
    done = len(list(records.iterdir()))
    assert done < ROWS, "it was too fast for the test"
    assert ended(server, flow_run) == "CANCELLED"
    assert len(list(records.iterdir())) == done, "workers went on"
    report = reconcile_run("stopped", settings, safe_age=0)
    assert (report["lost"], report["unexpected"]) == (ROWS - done, 0)
    assert ended(server, server.start({"run": "stopped"})) == "COMPLETED"
    report = reconcile_run("stopped", settings, safe_age=0)
    assert (report["lost"], report["unexpected"], report["duplicated"]) == (0, 0, 0)
    shown = [each for each in found_at(server, "artifacts") if each["key"] == "stopped-progress"]
    assert any(f"{ROWS} of {ROWS}" in each["description"] for each in shown)
    assert len(shown) == 2, "one for each flow run"
    assert any("`pressrun resume stopped` goes on" in each["description"] for each in shown)
    (page,) = [each for each in found_at(server, "artifacts") if each["key"] == "stopped-gallery"]
    assert (page["type"], "/gallery/index.html`" in page["data"]) == ("markdown", True), "a folder"
    _, heard = hook
    for headers, body in heard:
        assert headers[SIGNATURE] == signature(SECRET, body)
    told = [json.loads(body) for _, body in heard if json.loads(body)["run"] == "stopped"]
    assert [each["event"] for each in told] == ["cancelled", "finished"]
    assert told[1]["summary"]["accepted"] == ROWS


def test_a_run_of_the_command_line_is_cancelled_in_prefect_too(
    server: Server, settings: Settings
) -> None:
    """Nobody but the flow itself looks at its state there."""
    workdir = server.workdir
    write_jobs(workdir.folder / "held.csv", ROWS)
    env = {"PRESSRUN_REDIS_URL": workdir.url, **workdir.settings}
    process = begin("run", "held.csv", cwd=workdir.folder, settings=env)
    records = Path(settings.store, "runs/held/records")
    wait(lambda: records.exists() and len(list(records.iterdir())) > 10, server)
    (flow_run,) = flow_runs(server, "held")
    server.cancel(flow_run["id"])
    time.sleep(IDLE)
    done = len(list(records.iterdir()))
    _, said = process.communicate(timeout=LIMIT)
    assert (process.returncode, server.state(flow_run["id"])) == (1, "CANCELLED")
    assert "The run was stopped" in said
    assert len(list(records.iterdir())) == done < ROWS


@pytest.mark.usefixtures("served")
def test_files_in_the_inbox_become_runs_once(
    server: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inboxes, "PAUSE", 1.0)
    box = Path(settings.inbox)
    write_jobs(box / "Spring 1.csv", 5)
    (box / "Spring 1.toml").write_text('run = "spring"\nthreshold = 0.1\n', encoding="utf-8")
    (box / "broken.parquet").write_bytes(b"PAR1 no")
    write_jobs(box / "refused.csv", 5)
    (box / "refused.json").write_text('{"candidate": 8}', encoding="utf-8")
    # several looks at once take each file once
    with ThreadPoolExecutor(3) as pool:
        looks = [pool.submit(copy_context().run, inbox) for _ in range(3)]
    assert all(look.exception() is None for look in looks)
    assert not list(box.glob("*.*"))
    wait(lambda: not inbox() and not any((box / "working").glob("*/*")), server)
    (event,) = (box / "done").glob("*-Spring 1.csv.summary.json")
    told = json.loads(event.read_text(encoding="utf-8"))
    assert (told["run"], told["summary"]["accepted"]) == ("spring", 5)
    assert list((box / "done").glob("*-Spring 1.toml"))
    reasons = {
        path.name.partition("-")[2]: json.loads(path.read_text(encoding="utf-8"))["reason"]
        for path in (box / "failed").glob("*.summary.json")
    }
    assert "candidate" in reasons["refused.csv.summary.json"]
    assert "broken.parquet" in reasons["broken.parquet.summary.json"]
    assert len(flow_runs(server, "spring")) == 1
    # equal content is not done again, whatever its name
    write_jobs(box / "autumn.csv", 5)
    (box / "autumn.json").write_text('{"run": "spring", "threshold": 0.1}', encoding="utf-8")
    inbox()
    assert list((box / "done").glob("*-autumn.csv"))
    assert len(flow_runs(server, "spring")) == 1


def test_a_file_that_grows_is_left(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "PAUSE", 1.0)
    file = Path(settings.inbox, "growing.csv")
    file.write_text("keywords\n", encoding="utf-8")
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(copy_context().run, inbox)
        while not looking.done():
            with file.open("a", encoding="utf-8") as more:
                more.write("red circle\n")
            time.sleep(0.2)
    assert looking.result() == []
    file.unlink()


@pytest.mark.usefixtures("served")
def test_an_inbox_in_a_bucket(
    server: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inboxes, "PAUSE", 1.0)
    monkeypatch.setenv("PRESSRUN_INBOX", f"s3://{BUCKET}/inbox")
    store = open_store(settings.model_copy(update={"store": f"s3://{BUCKET}/inbox"}))
    write_jobs(server.workdir.folder / "bucket.csv", 3)
    store.put("bucket.csv", (server.workdir.folder / "bucket.csv").read_bytes(), content_type="")
    wait(lambda: inbox() and not list(store.keys("working/")), server)
    file, event = store.keys("done/")
    assert file.endswith("-bucket.csv")
    assert json.loads(store.get(event))["summary"]["accepted"] == 3
    assert not list(store.keys("bucket.csv"))


@pytest.mark.usefixtures("server")
def test_sources_are_ingested_and_again_change_nothing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSRUN_HOME", str(tmp_path))
    facts = tmp_path / "facts.jsonl"
    facts.write_text('{"text": "Solano is orange."}\n{"text": "Kiva is blue."}\n{"txt": 1}\n')
    reports = [ingest(facts, "brands") for _ in range(2)]
    assert [(each["added"], each["unchanged"]) for each in reports] == [(2, 0), (0, 2)]
    assert len(reports[0]["bad"]) == 1


def aged(settings: Settings, run: str, days: int) -> None:
    """Have a run begun and ended so long ago."""
    for name in ("run.json", "summary.json"):
        if (file := Path(settings.store, "runs", run, name)).exists():
            then = time.time() - 86400.0 * days
            os.utime(file, (then, then))


def opened(run: str, server: Server, settings: Settings) -> tuple[RunFolder, RunSpec]:
    """A run of three jobs, opened."""
    file = server.workdir.folder / f"{run}.csv"
    write_jobs(file, 3)
    run_folder = open_run_folder(settings, run, committing=True)
    return run_folder, open_run(file, Overrides(), settings, run_folder)


def finished(run: str, server: Server, settings: Settings) -> RunFolder:
    """A run whose jobs are accepted, published."""
    run_folder, spec = opened(run, server, settings)
    seen = CandidateRecord(index=0, seed=0, score=Score(raw=1, calibrated=1))
    for job in run_folder.shards.read(spec.fingerprint, 1):
        outcome = Outcome(
            run=run, job_id=job.id, status=Status.ACCEPTED, job=job, row=job.row, winner=0,
            keywords=job.keywords, candidates=(seen,),
        )  # fmt: skip
        run_folder.records.commit(outcome, np.zeros((16, 16, 3), np.float32))
    publish(run_folder, spec, seconds=1.0)
    return run_folder


def test_recent_runs_are_reconciled(server: Server, settings: Settings) -> None:
    run_folder = finished("mint", server, settings)
    reports = {report["run"]: report for report in reconcile_runs()}
    assert all(report["sound"] for report in reports.values())
    assert reports["mint"]["ended"]
    image = next(Path(run_folder.address("images")).iterdir())
    kept = image.read_bytes()
    image.write_bytes(b"another one")
    with pytest.raises(RunError, match="mint do not balance"):
        reconcile_runs(read_images=True)
    image.write_bytes(kept)


def test_old_runs_are_removed_and_open_ones_are_not(server: Server, settings: Settings) -> None:
    done = finished("sage", server, settings)
    run_folder, _ = opened("sage-2", server, settings)

    def what(**asked: Any) -> dict[str, str]:
        return {each["run"]: each["what"] for each in remove_runs("sage*", days=30, **asked)}

    assert what() == {"sage": "kept: too young", "sage-2": "kept: too young"}
    aged(settings, "sage", 31)
    aged(settings, "sage-2", 31)
    is_open = "kept: it is open; cancel it first"
    assert what() == {"sage": "would be removed", "sage-2": is_open}
    assert what(dry_run=False) == {"sage": "removed", "sage-2": is_open}
    assert not list(done.store.keys("runs/sage/"))
    assert run_folder.spec()
    run_folder.request_cancel()
    aged(settings, "sage-2", 31)
    os.utime(run_folder.address("cancelled.json"), (0, 0))
    assert what(dry_run=False) == {"sage-2": "removed"}


def test_a_server_is_told_where_things_are_from_anywhere(settings: Settings) -> None:
    here = settings.model_copy(update={"store": "out", "inbox": "in", "profile": "mine.toml"})
    told = environment(anchored(here))
    for name in ("STORE", "INBOX", "PROFILE", "HOME"):
        assert Path(told[f"PRESSRUN_{name}"]).is_absolute()
