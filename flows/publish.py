"""Publishes a run: manifest, summary and gallery, all derived from its records."""

from typing import Any

from flows.gallery import build_gallery
from pipeline.assemble import open_books, open_store
from pipeline.errors import RunError
from pipeline.job import RunSpec
from pipeline.settings import Settings
from pipeline.storing.books import RunBooks, run_names
from pipeline.storing.manifest import build_manifest, counts, read_manifest


def publish(books: RunBooks, spec: RunSpec, seconds: float) -> dict[str, Any]:
    """Derive everything from the records; answers the summary."""
    build_manifest(books, spec)
    table = read_manifest(books)
    gallery = build_gallery(books, spec, table)
    summary = summarise(books, spec) | {"seconds": round(seconds, 2), "gallery": gallery}
    books.write_summary(summary)
    return summary


def summarise(books: RunBooks, spec: RunSpec) -> dict[str, Any]:
    """How many rows there are and how they ended, from the manifest."""
    return {
        "run": spec.run,
        "folder": books.address(),
        "rows": spec.rows,
        **counts(read_manifest(books)),
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
    return summarise(books, spec) | {"seconds": books.summary().get("seconds", 0.0)}


def latest_run(settings: Settings) -> str:
    """The run that was opened last. Raises RunError where there is none."""
    store = open_store(settings)
    opened = [(RunBooks(store, name).spec().created_at, name) for name in run_names(store)]
    if not opened:
        raise RunError(f"There is no run in {store.address('')}.")
    return max(opened)[1]
