"""The Prefect flow that brings sources into the knowledge base."""

import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from flows.artifacts import artifact_key
from flows.context import flow_settings, masked
from flows.runs.knowledge import ingest_path

EVERY = 10.0
"""Seconds between two lines of the log."""
BAD_SHOWN = 20


@flow(name="ingest", flow_run_name="ingest {path} into {collection}")
@masked()
def ingest(
    path: Path, collection: str, profile: str | None = None, anew: bool = False
) -> dict[str, Any]:
    """Put texts, tables, pages and images into the knowledge base.

    Doing it again changes nothing, and mends what an interruption left half done.

    Args:
        path: A file or a folder of sources, a path that the Prefect worker sees.
        collection: The collection to put them into.
        profile: The profile whose models embed them. Empty, PRESSRUN_PROFILE.
        anew: Whether they replace the collection, at once when all is in.
    """
    steps = Steps(collection)
    settings = flow_settings(profile=profile)
    report = ingest_path(path, collection, settings, steps.advance, anew=anew)
    table = {name: value for name, value in report.items() if name != "bad"}
    table["bad"] = len(report["bad"])
    key = artifact_key(f"ingest-{collection}")
    create_table_artifact(table=[table], key=key, description=f"{path} into {collection}")
    for bad in report["bad"][:BAD_SHOWN]:
        steps.logger.warning("%s, line %s: %s", bad["file"], bad["line"], bad["reason"])
    return report


class Steps:
    """Says in the flow run's log how far it is."""

    def __init__(self, collection: str) -> None:
        self.logger = get_run_logger()
        self._collection, self._done, self._said = collection, 0, time.monotonic()

    def advance(self, sources: int) -> None:
        """So many more sources are in."""
        self._done += sources
        if time.monotonic() - self._said > EVERY:
            self._said = time.monotonic()
            self.logger.info("%s: %d sources", self._collection, self._done)
