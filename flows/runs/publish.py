"""Publishing a run: manifest, summary and gallery, all derived from its records."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa

from flows.dispatch.budget import Budget
from flows.dispatch.heartbeat import STALE
from flows.runs.costs import FREE, Costs, Price
from flows.runs.gallery.page import INDEX, Gallery
from flows.runs.lines import RunLines
from flows.runs.near_duplicates import near_duplicates
from flows.runs.open import as_far_as_read
from flows.runs.reconcile import Report
from flows.runs.states import newest, state_of
from pipeline.assemble.stores import open_run_folder, open_store, reach_store
from pipeline.errors import RunError
from pipeline.judging.gate import LEAST
from pipeline.record import RunSpec, Status
from pipeline.records.ids import IdSet
from pipeline.records.manifest import COLUMNS, Manifest, build_manifest
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings


def publish(
    run_folder: RunFolder,
    spec: RunSpec,
    seconds: float,
    report: Report | None = None,
    price: Price = FREE,
    stopped: str = "",
    budget: Budget | None = None,
) -> dict[str, Any]:
    """Write manifest, gallery and summary; returns the summary, with the reconciler's counters.

    If the run was `stopped` in order, rows without a record count as left, not as lost.
    """
    lines, gallery, costs = RunLines(run_folder, spec), Gallery(run_folder), Costs(price)

    def tables() -> Iterator[pa.Table]:
        for table in lines.tables(*COLUMNS, "card"):
            gallery.add(map(json.loads, table["card"].to_pylist()))
            yield table.select(list(COLUMNS))

    manifest = Manifest(build_manifest(run_folder, tables()))
    summary = summarise(run_folder, spec, manifest, costs) | {"seconds": round(seconds, 2)}
    summary |= near_duplicates(manifest)
    summary["gallery"] = gallery.write(spec, manifest, costs.sentence())
    if report:
        summary |= report.counters | {"resent": report.resent}
    if budget and budget.quota is not None:
        summary |= {"quota": budget.quota, "quota_met": budget.quota_met}
    if stopped:
        summary |= {"lost": 0, "left": summary.get("lost", 0), "stopped": stopped}
    records = sum(1 for _ in run_folder.records.ids())
    run_folder.write_summary(summary | {"fingerprint": spec.fingerprint, "records": records})
    return summary


def finished(
    run_folder: RunFolder, spec: RunSpec, retry: Collection[Status]
) -> dict[str, Any] | None:
    """The summary of a run with nothing left to do and nothing to retry, else None."""
    if not spec.rows:  # its job file was not read to the end
        return None
    summary = run_folder.summary()
    if summary.pop("fingerprint", None) != spec.fingerprint or any(summary[v.value] for v in retry):
        return None
    ended = sum(summary[status.value] for status in Status)
    whole = ended == spec.rows and sum(1 for _ in run_folder.records.ids()) >= summary.pop(
        "records"
    )
    if not whole:
        return None
    # a limit that left rows out which were to be done again is over
    return {name: value for name, value in summary.items() if name not in ("stopped", "left")}


def summarise(
    run_folder: RunFolder, spec: RunSpec, manifest: Manifest, costs: Costs
) -> dict[str, Any]:
    """The counts of rows by status, the mean score and the costs, in one pass over the manifest.
    Equal rows are one job, which `costs` counts once.
    """
    ended, seen, scores, kept = Counter[str](), IdSet(), 0.0, 0
    thousandths = Counter[int]()
    for line in manifest.lines("job_id", "outcome", "score", "device_seconds", "collection"):
        ended[line["outcome"]] += 1
        if line["score"] is not None:
            scores, kept = scores + line["score"], kept + 1
            thousandths[round(1000 * line["score"])] += 1
        if seen.add(line["job_id"]):
            costs.add(Status(line["outcome"]), line["device_seconds"], line["collection"])
    return {
        "run": spec.run,
        "folder": run_folder.address(),
        "rows": spec.rows,
        **{status.value: ended[status.value] for status in Status},
        "mean_score": round(scores / kept, 3) if kept else None,
        **_off_band(spec, thousandths),
        **costs.summary(),
    }


def _off_band(spec: RunSpec, thousandths: Counter[int]) -> dict[str, str]:
    """A sentence where the median of the winners' scores, counted in thousandths, has left the band
    that the gate was calibrated for; of few winners it says nothing.
    """
    band = spec.profile.get("panel", {}).get("band")
    if not band or thousandths.total() < LEAST:
        return {}
    scores = sorted(thousandths.elements())
    middle, (low, high) = scores[len(scores) // 2] / 1000, band
    if low - 0.001 <= middle <= high + 0.001:
        return {}
    return {
        "gate": f"the winners' median score {middle:.3f} is outside the calibrated {low:.3f} to"
        f" {high:.3f}: calibrate the gate again"
    }


def republish(settings: Settings, run: str) -> dict[str, Any]:
    """Write manifest, gallery and summary of a run again, from its records alone."""
    run_folder = open_run_folder(settings, run)
    earlier = run_folder.summary()
    seconds = earlier.get("seconds", 0.0)
    return publish(run_folder, as_far_as_read(run_folder), seconds, price=Price.of(settings))


def status_of(settings: Settings, run: str | None) -> dict[str, Any]:
    """The state of a run by its records. Raises RunError if there is no such run."""
    reach_store(settings)
    run_folder = open_run_folder(settings, run or latest_run(settings))
    spec, progress = as_far_as_read(run_folder), run_folder.progress(STALE)
    lines = RunLines(run_folder, spec).tables(*COLUMNS)
    manifest = Manifest(build_manifest(run_folder, lines))
    left = spec.rows - len(manifest)
    status: dict[str, Any] = {
        "run": run_folder.run,
        "state": state_of(run_folder, spec, progress, left).value,
    }
    status |= {"file": spec.job_file, "opened": spec.created_at}
    status |= summarise(run_folder, spec, manifest, Costs(Price.of(settings)))
    status |= {"seconds": run_folder.summary().get("seconds", 0.0), "left": left}
    if progress:
        status["jobs_per_minute"] = round(progress.jobs_per_minute, 1)
        status["seconds_left"] = None if progress.left is None else round(progress.left)
        status |= {"paused": progress.paused} if progress.paused else {}
    if run_folder.has(INDEX):
        status["gallery"] = run_folder.address(INDEX)
    return status


def latest_run(settings: Settings) -> str:
    """The run that was opened last. Raises RunError if there is none."""
    store = open_store(settings)
    for name in newest(store):
        return name
    raise RunError(f"There is no run in {store.address('')}.")
