"""What a real worker and a real flow tell of a run: figures, traces, logs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.harness.monitored import Monitored, monitor
from tests.harness.otlp_server import Collector, otlp_server
from tests.harness.prefect_server import free_port

pytestmark = pytest.mark.slow

ROWS, CANDIDATES = 6, 2
SHARD = "watched shard 1 (rows 1 to 6)"
STAGES = ["retrieve", "write", "render", "judge", "commit"]
CANARY = "canary-of-the-tests"
DEPLOY = Path("deploy")
PROMETHEUS_OWN = {"up"}


@pytest.fixture(scope="module")
def monitored(workdir: Path, redis_server: str) -> Monitored:
    """A finished run of a few jobs on the small models."""
    rows = [f"{{red|blue|green}} circle on white {n},{CANDIDATES}" for n in range(ROWS)]
    (workdir / "jobs.csv").write_text("\n".join(["keywords,candidates", *rows]), encoding="utf-8")
    settings = {
        "PRESSRUN_REDIS_URL": redis_server,
        "PRESSRUN_HOME": str(workdir / "home"),
        "PRESSRUN_LOG_LEVEL": "debug",
        "PRESSRUN_TRACES": "1",
        "PRESSRUN_WRITER_API_KEY": CANARY,
        "PRESSRUN_A1111_AUTH": f"user:{CANARY}",
        "AWS_SECRET_ACCESS_KEY": CANARY,
    }
    with otlp_server() as collector:
        settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
        monitored = monitor(workdir, settings, free_port(), free_port())
        monitored.spans = collector.spans
    return monitored


def queries() -> Iterator[Any]:
    """Each query of the dashboard and of the rules."""
    dashboard = json.loads((DEPLOY / "grafana" / "pressrun.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"].replace("$__rate_interval", "5m")
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def selected(query: str) -> list[tuple[str, dict[str, str]]]:
    """The series that a query selects: their name, and what their labels have to be."""
    found = list[tuple[str, dict[str, str]]]()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            equal = [m for m in node.matchers.matchers if m.op == promql_parser.MatchOp.Equal]
            found.append((node.name, {m.name: m.value for m in equal}))

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_asks_for_what_is_exposed(monitored: Monitored, query: str) -> None:
    asked = selected(query)
    assert asked
    for name, labels in asked:
        if name not in PROMETHEUS_OWN:
            labels.pop("job", None)
            assert any(who.has(name, labels) for who in (monitored.worker, monitored.flow)), name


def test_the_worker_counts_what_the_run_sums_up(monitored: Monitored) -> None:
    worker, summary = monitored.worker, monitored.summary
    for status in ("accepted", "below_gate", "failed", "blocked"):
        assert worker.value("pressrun_jobs_total", status=status) == summary[status]
    assert worker.value("pressrun_candidates_total", fate="valid") == ROWS * CANDIDATES
    for stage in STAGES:
        assert worker.value("pressrun_stage_seconds_count", stage=stage) == ROWS
    assert worker.value("pressrun_queue_wait_seconds_count") == ROWS
    assert worker.value("pressrun_batch_occupancy_ratio_count", role="renderer") > 0
    assert worker.value("pressrun_text_cache_total", role="judge", result="miss") > 0
    assert worker.value("pressrun_jobs_in_work") == worker.value("pressrun_leases") == 0


def test_the_flow_tells_of_its_run_and_of_the_queue(monitored: Monitored) -> None:
    assert monitored.flow.value("pressrun_flow_rows") == ROWS
    assert monitored.flow.value("pressrun_redis_up") == 1
    assert monitored.flow.value("pressrun_queue_messages", priority="5") <= ROWS


def test_a_stage_is_traced_below_its_job_and_a_job_below_its_run(monitored: Monitored) -> None:
    collector = Collector(spans=monitored.spans)
    (run,) = collector.named("run")
    assert (run.service, run.attributes) == ("pressrun-flow", {"pressrun.run": "watched"})
    jobs = collector.named("job")
    assert len({job.attributes["pressrun.job"] for job in jobs}) == ROWS
    for job in jobs:
        assert (job.service, job.trace) == ("pressrun-worker", run.trace)
        assert job.attributes["pressrun.status"] == "accepted"
        # Prefect's own span of the shard is between them
        assert [span.name for span in collector.above(job)] == [
            "watched shard 1 (rows 1 to 6)",
            "run",
        ]
        assert [stage.name for stage in collector.below(job)] == STAGES
        assert {stage.trace for stage in collector.below(job)} == {run.trace}


def test_each_line_of_the_worker_is_an_object_without_a_secret(monitored: Monitored) -> None:
    lines = [json.loads(line) for line in monitored.worker_log.splitlines()]
    assert {"worker started", "worker ended"} <= {line["event"] for line in lines}
    assert CANARY not in monitored.worker_log + monitored.flow_log
