"""The knowledge base as commands and flows use it: ingest sources, require a collection."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pipeline.assemble.knowledge import open_knowledge, open_library
from pipeline.errors import ConfigError, InUse
from pipeline.retrieval.ingest import ingest
from pipeline.retrieval.versions import names
from pipeline.settings import Settings


def ingest_path(
    path: Path,
    collection: str,
    settings: Settings,
    advance: Callable[[int], None] | None = None,
    *,
    anew: bool = False,
) -> dict[str, Any]:
    """Put a file or folder of sources into a collection, which with `anew` replaces its content;
    returns the report of changes.

    `advance` is called with the number of sources of each step.
    """
    library = open_library(settings, settings.chosen_profile)
    columns = (SpinnerColumn(), TextColumn("[bold]{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(f"{collection}: 0 sources")

            def step(sources: int) -> None:
                bar.advance(task, sources)
                done = int(bar.tasks[0].completed)
                bar.update(task, description=f"{collection}: {done} sources")
                if advance:
                    advance(sources)

            report = ingest(library, path, collection, step, anew=anew)
    finally:
        library.close()
    return {"collection": collection, **report.model_dump(mode="json")}


def require_collection(name: str, settings: Settings) -> None:
    """Raise ConfigError if the knowledge base has no such collection.

    If a running worker holds the local knowledge base, the check is left to that worker.
    """
    try:
        client = open_knowledge(settings)
    except InUse:
        if settings.redis_url:
            return
        raise
    try:
        known = names(client)
    finally:
        client.close()
    if name not in known:
        there = ", ".join(known) or "none yet"
        raise ConfigError(
            f"No collection {name!r} in the knowledge base (there are: {there}). "
            f"Make it with: pressrun ingest PATH --collection {name}"
        )
