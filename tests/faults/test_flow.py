"""The flow's process is killed, or Prefect's server, and another one goes on with the run."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.stack.reaper import POLL_SECONDS
from flows.stack.redis_server import redis_binary
from tests.harness.cluster import Cluster
from tests.harness.commandline import answer, begin, pressrun_here

pytestmark = pytest.mark.slow

LEAVE_SECONDS = 60


def left_of(flow: "subprocess.Popen[str]", *needed: str) -> list[str]:
    """Kill the flow; return the commands of the processes that it had started and that do not end
    by themselves. They are killed too. Asserts that it had started all that is `needed`.
    """
    started = psutil.Process(flow.pid).children(recursive=True)
    names = {process: " ".join(process.cmdline()) for process in started}
    assert all(any(part in name for name in names.values()) for part in needed)
    flow.kill()
    flow.wait()
    _, left = psutil.wait_procs(started, LEAVE_SECONDS)
    for process in left:
        process.kill()
    return [names[process] for process in left]


def children_of(flow: "subprocess.Popen[str]", count: int) -> list[psutil.Process]:
    """The processes that it starts, in order, once there are `count`."""
    while len(started := psutil.Process(flow.pid).children()) < count:
        time.sleep(0.1)
    return sorted(started, key=lambda process: process.create_time())


def test_the_reaper_ends_the_children_of_a_killed_process() -> None:
    started = f"""
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "flows.stack.reaper", str(os.getpid())])
subprocess.Popen([sys.executable, "-c", "import time; time.sleep({2 * LEAVE_SECONDS})"])
time.sleep({2 * LEAVE_SECONDS})
"""
    with subprocess.Popen([sys.executable, "-c", started], text=True) as flow:
        reaper = children_of(flow, 2)[0]
        while not any("psutil" in each.path for each in reaper.memory_maps()):
            time.sleep(0.1)
        time.sleep(4 * POLL_SECONDS)
        assert not left_of(flow, "flows.stack.reaper")


def test_workers_go_on_without_the_flow_and_no_job_is_executed_twice(
    cluster: Cluster, prefect_server: str
) -> None:
    cluster.start_worker()
    cluster.start_worker()
    cluster.env["PRESSRUN_WINDOW"] = "8"
    words = ("jobs.csv", "--run", "run", "--candidates", "1", "--json")
    flow = begin("run", *words, cwd=cluster.workdir, settings=cluster.env)
    cluster.wait(lambda: len(cluster.records()) > 2)
    assert not left_of(flow, "prefect")
    assert len(cluster.records()) < cluster.rows, "there is more to do"
    settings = cluster.env | {"PREFECT_API_URL": prefect_server}
    done = pressrun_here("resume", "run", "--json", cwd=cluster.workdir, settings=settings)
    assert answer(done)["accepted"] == cluster.rows
    cluster.verify(cluster.rows)


def test_all_jobs_and_the_command_end_when_prefects_server_dies(
    cluster: Cluster, prefect_server: str
) -> None:
    cluster.start_worker()
    cluster.env["PREFECT_CLIENT_MAX_RETRIES"] = "1"
    words = ("jobs.csv", "--run", "run", "--candidates", "1", "--json")
    flow = begin("run", *words, cwd=cluster.workdir, settings=cluster.env)
    cluster.wait(lambda: len(cluster.records()) > 2)
    for child in psutil.Process(flow.pid).children(recursive=True):
        if "prefect.server.api.server:create_app" in child.cmdline():
            child.kill()
    assert len(cluster.records()) < cluster.rows, "there is more to do"
    _, said = flow.communicate(timeout=LEAVE_SECONDS)
    assert flow.returncode == 1, said
    assert "Prefect's server went away" in said.splitlines()[-1]
    assert "`pressrun resume run`" in said
    assert len(cluster.records()) == cluster.rows
    settings = cluster.env | {"PREFECT_API_URL": prefect_server}
    done = pressrun_here("resume", "run", "--json", cwd=cluster.workdir, settings=settings)
    assert answer(done)["accepted"] == cluster.rows
    cluster.verify(cluster.rows)


def test_a_killed_flow_ends_its_private_services_and_leaves_complete_records(
    tmp_path: Path,
) -> None:
    """Everything private, and the real small models."""
    rows = "".join(f"{{red|blue|green}} circle number {number}\n" for number in range(200))
    (tmp_path / "jobs.csv").write_text("keywords\n" + rows, encoding="utf-8")
    words = ("jobs.csv", "--run", "r", "--candidates", "1")
    flow = begin("run", *words, cwd=tmp_path, settings={"PRESSRUN_CONCURRENCY": "2"})
    records = tmp_path / "out" / "runs" / "r" / "records"
    while not any(records.glob("*.json")):
        assert flow.poll() is None, flow.communicate()
        time.sleep(0.05)
    assert not left_of(flow, Path(redis_binary()).name, "workers.worker.main", "prefect")
    report = answer(pressrun_here("reconcile", "r", "--json", cwd=tmp_path), code=1)
    assert (report["duplicated"], report["recovered"], report["unexpected"]) == (0, 0, 0)
    assert report["rows"] - report["lost"] == len(list(records.glob("*.json"))) < 200
    assert "a second signal" not in (tmp_path / ".pressrun" / "worker.log").read_text()
