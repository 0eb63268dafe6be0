"""What Prefect's UI shows of a run: its progress, its summary, a link to its gallery."""

import json
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)


def show_progress(run: str) -> UUID:
    """A progress bar at 0 on the flow run's page; answers its id."""
    key = f"{_key(run)}-progress"
    return cast(UUID, create_progress_artifact(0.0, key=key, description=f"Run {run}"))


def update_progress(artifact: UUID, percent: float) -> None:
    """Move a progress bar to `percent`, 0 to 100."""
    update_progress_artifact(artifact, percent)


def show_summary(summary: dict[str, Any]) -> None:
    """The summary as a table, and the gallery as a link."""
    run, key = summary["run"], _key(summary["run"])
    cells = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in summary.items()
    }
    create_table_artifact(table=[cells], key=f"{key}-summary", description=f"Run {run}")
    create_link_artifact(summary["gallery"], f"Gallery of {run}", key=f"{key}-gallery")


def _key(run: str) -> str:
    """Prefect's artifact keys hold lower-case letters, digits and dashes."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in run.lower())
