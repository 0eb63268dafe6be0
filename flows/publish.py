"""Publishes a run: manifest, summary and gallery, all derived from its records."""

from array import array
from collections.abc import Collection
from typing import Any

from flows.gallery import build_gallery
from flows.reconcile import Report
from pipeline.assemble import open_books, open_store
from pipeline.errors import RunError
from pipeline.job import RunSpec, Verdict
from pipeline.settings import Settings
from pipeline.storing.books import RunBooks, run_names
from pipeline.storing.manifest import Manifest, build_manifest, counts, read_manifest


def publish(
    books: RunBooks, spec: RunSpec, seconds: float, report: Report | None = None
) -> dict[str, Any]:
    """Derive everything from the records; answers the summary, with the reconciler's counters."""
    build_manifest(books, spec)
    manifest = read_manifest(books)
    gallery = build_gallery(books, spec, manifest)
    summary = summarise(books, spec, manifest) | {"seconds": round(seconds, 2), "gallery": gallery}
    if report:
        summary |= report.counters
    records = sum(1 for _ in books.recorded())
    books.write_summary(summary | {"edition": spec.edition, "records": records})
    return summary


def finished(books: RunBooks, spec: RunSpec, retry: Collection[Verdict]) -> dict[str, Any] | None:
    """The summary of a run of which nothing is left to do, or to do again; else None."""
    summary = books.summary()
    if summary.pop("edition", None) != spec.edition or any(summary[v.value] for v in retry):
        return None
    ended = sum(summary[verdict.value] for verdict in Verdict)
    whole = ended == spec.rows and sum(1 for _ in books.recorded()) >= summary.pop("records")
    return summary if whole else None


def summarise(books: RunBooks, spec: RunSpec, manifest: Manifest) -> dict[str, Any]:
    """How many rows there are, how they ended and how the kept pictures scored, by the manifest."""
    scores = (line["score"] for line in manifest.lines("score"))
    kept = array("d", (score for score in scores if score is not None))
    return {
        "run": spec.run,
        "folder": books.address(),
        "rows": spec.rows,
        **counts(manifest),
        "mean_score": round(sum(kept) / len(kept), 3) if kept else None,
    }


def republish(settings: Settings, run: str) -> dict[str, Any]:
    """Make manifest and gallery of a run again, with nothing but its records."""
    books = open_books(settings, run)
    earlier = books.summary()
    return publish(books, books.spec(), earlier.get("seconds", 0.0))


def status_of(settings: Settings, run: str | None) -> dict[str, Any]:
    """How a run stands now, by its records. Raises RunError when there is no such run."""
    books = open_books(settings, run or latest_run(settings))
    spec = books.spec()
    build_manifest(books, spec)
    return summarise(books, spec, read_manifest(books)) | {
        "seconds": books.summary().get("seconds", 0.0)
    }


def latest_run(settings: Settings) -> str:
    """The run that was opened last. Raises RunError where there is none."""
    store = open_store(settings)
    opened = [(RunBooks(store, name).spec().created_at, name) for name in run_names(store)]
    if not opened:
        raise RunError(f"There is no run in {store.address('')}.")
    return max(opened)[1]
