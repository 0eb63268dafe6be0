"""docs/monitoring.md, the dashboard and the rules name what there is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry
from redis import Redis

from flows.dispatch.dispatcher import Dispatcher
from flows.dispatch.metrics import RunMetrics
from pipeline.job import Score
from pipeline.record import CandidateRecord
from pipeline.settings import load_settings
from tests.harness.cluster import NoProgress
from tests.harness.jobs import make_job, make_outcome
from tests.harness.monitored import full_name
from tests.harness.stand_in import StandInAssembly
from workers.queue.backlog import Backlog
from workers.queue.messages import Queue
from workers.worker.metrics import WorkerMetrics

TABLE = re.compile(r"^\| `(pressrun_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", re.MULTILINE)
DEPLOY = Path("deploy")


def registries(tmp_path: Path) -> list[CollectorRegistry]:
    """A worker's and a flow's, with all that they ever expose."""
    settings = load_settings(store=str(tmp_path))
    worker, run = WorkerMetrics(settings, list), RunMetrics(NoProgress(), lambda: 1)
    queue = Queue("redis://127.0.0.1:1")
    run.show(Dispatcher(queue, StandInAssembly(settings).run_folder("r"), "e", 2, run))
    for registry in (worker.registry, run.registry):
        registry.register(Backlog(Redis(), broker=True))
    return [worker.registry, run.registry]


def described(registry: CollectorRegistry) -> Iterator[tuple[str, ...]]:
    """Name, type, labels and meaning of each metric of ours."""
    for collector in registry._collector_to_names:
        found: Any = collector
        for family in (found.describe if hasattr(found, "describe") else found.collect)():
            labels = getattr(found, "_labelnames", None) or getattr(family, "_labelnames", ())
            if family.name.startswith("pressrun_"):
                named = ", ".join(f"`{label}`" for label in labels)
                yield full_name(family), family.type, named, family.documentation


def test_the_table_of_metrics_is_what_the_code_exposes(tmp_path: Path) -> None:
    exposed = {row for registry in registries(tmp_path) for row in described(registry)}
    table = TABLE.findall((Path("docs") / "monitoring.md").read_text(encoding="utf-8"))
    rows = {
        f"| `{name}` | {kind} | {labels} | {meaning} |" for name, kind, labels, meaning in exposed
    }
    told = {
        f"| `{name}` | {kind} | {labels} | {meaning} |" for name, kind, labels, meaning in table
    }
    assert told == rows
    assert len(table) == len(told)


def test_a_refused_candidate_is_no_broken_one(tmp_path: Path) -> None:
    metrics, none = (
        WorkerMetrics(load_settings(store=str(tmp_path)), list),
        {"raw": 0, "valid": False},
    )
    scores = [
        Score(calibrated=0.9, raw=0.3),
        Score(calibrated=0, blocked=True, **none),
        Score(calibrated=0, **none),
        None,
    ]
    candidates = tuple(
        CandidateRecord(index=index, seed=index, score=score) for index, score in enumerate(scores)
    )
    metrics.ended(make_outcome(make_job(), candidates=candidates))
    counted = {
        fate: metrics.registry.get_sample_value("pressrun_candidates_total", {"fate": fate})
        for fate in ("valid", "blocked", "invalid", "dropped")
    }
    assert counted == dict.fromkeys(counted, 1)


def test_the_rules_are_well_formed() -> None:
    page = (Path("docs") / "monitoring.md").read_text(encoding="utf-8")
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    for name in config["rule_files"]:
        (group,) = yaml.safe_load((DEPLOY / "prometheus" / name).read_text("utf-8"))["groups"]
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert set(rule["annotations"]) == {"summary", "description"}
            assert f"| `{rule['alert']}` |" in page
        names = [rule["alert"] for rule in group["rules"]]
        assert len(names) == len(set(names))


def test_grafana_finds_its_dashboard_and_its_data() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text("utf-8"))
    assert [source["type"] for source in sources["datasources"]] == ["prometheus"]
    providers = yaml.safe_load((folder / "dashboards" / "pressrun.yml").read_text("utf-8"))
    assert [provider["type"] for provider in providers["providers"]] == ["file"]
