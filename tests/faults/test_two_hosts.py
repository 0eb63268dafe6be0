"""Workers on another host: the link to them is cut in the middle of a run, and mended."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.stack.processes import program
from flows.stack.redis_server import redis_binary
from tests.harness import prefect_database
from tests.harness.jobs import write_jobs
from tests.harness.two_hosts import NoNamespaces, Pair, two_hosts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS, WORKERS, IN_HAND = 120, 2, 4
CUT_SECONDS = 8.0
PASSWORD, KEY = "of-two-hosts", "two-hosts"
LIMIT = 240.0
READY = """
import os, sys, time
from contextlib import suppress
from pipeline.errors import Unavailable
from workers.queue.messages import Queue
queue = Queue.connect(os.environ["PRESSRUN_REDIS_URL"])
while True:
    with suppress(Unavailable):
        if len(queue.workers()) >= int(sys.argv[1]):
            break
    time.sleep(0.2)
"""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Redis and the store on one host, workers on the other one."""
    if not program("rclone"):
        pytest.skip("rclone is not installed")
    try:
        with two_hosts(tmp_path) as pair:
            _furnish(pair)
            yield pair
    except NoNamespaces as error:
        pytest.skip(f"no network namespaces here: {error}")


def test_a_run_outlives_a_cut_link(pair: Pair) -> None:
    report, executions = run_through(pair, ROWS, CUT_SECONDS)
    assert (report["lost"], report["duplicated"], report["unexpected"]) == (0, 0, 0)
    assert report["rows"] == ROWS
    assert executions <= ROWS + WORKERS * IN_HAND


def run_through(pair: Pair, rows: int, cut: float) -> tuple[dict[str, Any], int]:
    """A run of so many rows, cut for so many seconds; the reconciler's report and how many
    executions there were.
    """
    workdir = pair.here.workdir
    write_jobs(workdir / "jobs.csv", rows)
    tally = workdir / "tally"
    words = ("-m", "flows.cli", "run", "jobs.csv", "--run", "r", "--json")
    prefect_database.provide(workdir / ".pressrun" / "prefect")
    pair.here.start(sys.executable, *words, log="answer")
    flow = pair.here.processes[-1]
    _await(lambda: tally.exists() and len(tally.read_bytes().splitlines()) > rows // 10)
    pair.cut()
    time.sleep(cut)
    done = len(tally.read_bytes().splitlines())
    assert done < rows, "there is more to do"
    pair.mend()
    flow.wait(LIMIT)
    assert flow.returncode == 0, (workdir / "answer").read_text(encoding="utf-8")[-2000:]
    asked = pair.here.run("-m", "flows.cli", "reconcile", "r", "--json")
    counted = Counter(line.split()[0] for line in tally.read_text(encoding="utf-8").splitlines())
    return json.loads(asked.stdout.splitlines()[-1]), counted.total()


def _furnish(pair: Pair) -> None:
    here, there, workdir = pair.here, pair.there, pair.here.workdir
    (workdir / "redis").mkdir()
    (workdir / "s3" / "images").mkdir(parents=True)
    redis = ["--bind", here.address, "--requirepass", PASSWORD, "--appendonly", "yes"]
    here.start(redis_binary(), *redis, "--dir", str(workdir / "redis"), log="redis.log")
    rclone = ["serve", "s3", str(workdir / "s3"), "--config", "", "--vfs-cache-mode", "off"]
    rclone += ["--addr", f"{here.address}:9090", "--auth-key", f"{KEY},{PASSWORD}"]
    here.start(program("rclone"), *rclone, log="s3.log")
    settings = {
        "PRESSRUN_REDIS_URL": f"redis://:{PASSWORD}@{here.address}:6379/0",
        "PRESSRUN_STORE": "s3://images/team",
        "PRESSRUN_S3_ENDPOINT_URL": f"http://{here.address}:9090",
        "PRESSRUN_CONCURRENCY": str(IN_HAND),
        "STAND_IN_SECONDS": "0.5",
        "STAND_IN_TALLY": str(workdir / "tally"),
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
    }
    here.env, there.env = settings, settings | {"PRESSRUN_HOME": str(workdir / "there")}
    there.start(sys.executable, "-m", "tests.harness.connected", str(WORKERS), log="workers.log")
    ready = here.run("-c", READY, str(WORKERS), limit=LIMIT)
    assert ready.returncode == 0, ready.stderr


def _await(ready: Any) -> None:
    deadline = time.monotonic() + LIMIT
    while not ready():
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.2)
