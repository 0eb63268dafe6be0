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

    Running it again changes nothing, and completes an interrupted ingest.

    Args:
        path: A file or a folder of sources, a path that the Prefect worker sees.
        collection: The collection to put them into.
        profile: The profile whose models embed them. Empty, PRESSRUN_PROFILE.
        anew: Replace the collection, in one step when all sources are in.
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
    """A log of the number of sources, every EVERY seconds."""

    def __init__(self, collection: str) -> None:
        self.logger = get_run_logger()
        self._collection, self._done, self._logged = collection, 0, time.monotonic()

    def advance(self, sources: int) -> None:
        """Count sources that are in."""
        self._done += sources
        if time.monotonic() - self._logged > EVERY:
            self._logged = time.monotonic()
            self.logger.info("%s: %d sources", self._collection, self._done)
