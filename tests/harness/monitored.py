"""A run that is monitored: its metrics over HTTP, and the logs of its processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.commandline import answer, begin
from tests.harness.otlp_server import Sent

LIMIT = 240.0
CLIENT = httpx.Client(timeout=10)


@dataclass
class Metrics:
    """The metrics that a process exposed, by their documented names."""

    families: dict[str, Metric] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> "Metrics":
        """The exposition, parsed."""
        found = text_string_to_metric_families(text)
        return cls({full_name(family): family for family in found})

    def value(self, name: str, **labels: str) -> float:
        """The only sample of this name with these labels among its own."""
        (value,) = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return value

    def has(self, series: str, labels: dict[str, str]) -> bool:
        """True if a query finds the series; a metric without samples yet may have any labels."""
        for family in self.families.values():
            if series in _series(family):
                told = [sample.labels for sample in family.samples if sample.name == series]
                return not told or any(labels.items() <= each.items() for each in told)
        return False


@dataclass
class Monitored:
    """The end of a run that was monitored."""

    summary: dict[str, Any]
    worker: Metrics
    flow: Metrics
    worker_log: str
    flow_log: str
    spans: list[Sent] = field(default_factory=list)


def scrape(port: int) -> Metrics | None:
    """The figures of the process that listens there, if any does."""
    try:
        page = CLIENT.get(f"http://127.0.0.1:{port}/metrics")
    except httpx.TransportError:
        return None
    assert page.status_code == 200
    return Metrics.read(page.text)


def wait(look: Callable[[], Any]) -> Any:
    """The first true result of `look`."""
    deadline = time.monotonic() + LIMIT
    while not (found := look()):
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.1)
    return found


@contextmanager
def started_worker(cwd: Path, settings: Mapping[str, str]) -> Iterator[Path]:
    """A supervised worker until the block ends; yields the file of its log."""
    log = cwd / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "worker", "--devices", "cpu"],
            cwd=cwd, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=output,
        )  # fmt: skip
        try:
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def monitor(cwd: Path, settings: Mapping[str, str], worker_port: int, flow_port: int) -> Monitored:
    """Work through jobs.csv with one worker, looking at both processes' figures."""
    with started_worker(cwd, {**settings, "PRESSRUN_METRICS_PORT": str(worker_port)}) as log:
        wait(lambda: scrape(worker_port))
        mine = {**settings, "PRESSRUN_METRICS_PORT": str(flow_port)}
        with begin("run", "jobs.csv", "--run", "watched", "--json", cwd=cwd, settings=mine) as run:
            try:
                flow = wait(lambda: scrape(flow_port) or run.poll() is not None)
                output, complaints = run.communicate(timeout=LIMIT)
            finally:
                run.kill()
        summary = answer(subprocess.CompletedProcess([], run.returncode, output, complaints))
        worker = scrape(worker_port)
    assert worker
    assert isinstance(flow, Metrics), complaints
    return Monitored(summary, worker, flow, log.read_text(encoding="utf-8"), complaints)


def full_name(family: Metric) -> str:
    """The name that a query uses."""
    endings = {"counter": "_total", "info": "_info"}
    return family.name + endings.get(family.type, "")


def _series(family: Metric) -> list[str]:
    name = full_name(family)
    if family.type == "histogram":
        return [name + ending for ending in ("_bucket", "_sum", "_count")]
    return [name]
