"""A run in Prefect's UI: progress, summary, best images, gallery and manifest as artifacts."""

import json
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
)
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactUpdate

from flows.dispatch.progress import ENDED_EARLY, Snapshot
from flows.runs.costs import Price
from pipeline.record import Status

NAMES = {Status.BELOW_GATE: "below gate"}


class LiveArtifact:
    """The Listener that keeps one progress artifact on the flow run's page up to date."""

    def __init__(self, run: str, price: Price, client: SyncPrefectClient) -> None:
        self._price, self._client = price, client
        key, description = f"{artifact_key(run)}-progress", f"Run {run}"
        made = create_progress_artifact(0.0, key=key, description=description)
        self._id = cast(UUID, made)

    def show(self, snapshot: Snapshot) -> None:
        """Update the artifact."""
        update = ArtifactUpdate(
            data=100.0 * snapshot.share, description=described(snapshot, self._price)
        )
        # not `update_artifact`, which adds an event to Prefect's database each time
        self._client.request(
            "PATCH",
            "/artifacts/{id}",
            json=update.model_dump(mode="json", exclude_unset=True),
            path_params={"id": self._id},
        )


def described(snapshot: Snapshot, price: Price) -> str:
    """A snapshot in Markdown, with its costs if there is a price."""
    counts = {NAMES.get(v, v.value): f"{snapshot.counts.get(v, 0):,}" for v in Status}
    cells = {
        "done": f"{snapshot.done:,} of {snapshot.rows:,}",
        "left": f"{snapshot.rows - snapshot.done:,}",
        **counts,
        "done before": f"{snapshot.before:,}",
        "images/s": f"{snapshot.images_per_second:.2f}",
        "time left": "?" if snapshot.left is None else _clock(snapshot.left),
        "running for": _clock(snapshot.seconds),
        "device time": _clock(snapshot.device_seconds),
    }
    if price.per_hour:
        cells["cost"] = f"{price.money(snapshot.device_seconds):,.2f} {price.currency}".strip()
    early = snapshot.phase in ENDED_EARLY
    state = f"paused: {snapshot.paused}" if snapshot.paused and not early else snapshot.phase
    table = [f"| {name} | {value} |" for name, value in cells.items()]
    lines = [f"Run **{snapshot.run}**, {state}", "", "| | |", "|---|---:|", *table]
    if early:
        go_on, look = f"`pressrun resume {snapshot.run}`", f"`pressrun gallery {snapshot.run}`"
        lines += ["", f"{go_on} goes on with the rest, {look} shows what is done."]
    return "\n".join(lines)


def show_summary(summary: dict[str, Any], manifest: str) -> None:
    """Create a table of the summary, and links to gallery and manifest."""
    run, key = summary["run"], artifact_key(summary["run"])
    lines = [
        {"of the run": name, "is": value if isinstance(value, str) else json.dumps(value)}
        for name, value in summary.items()
    ]
    create_table_artifact(table=lines, key=f"{key}-summary", description=f"Run {run}")
    _show_address(summary["gallery"], f"Gallery of {run}", f"{key}-gallery")
    _show_address(manifest, f"Manifest of {run}", f"{key}-manifest")


def _show_address(address: str, name: str, key: str) -> None:
    """Create a link if a browser can follow it from Prefect's page, else the address to copy."""
    if address.startswith(("http://", "https://")):
        create_link_artifact(address, name, key=key)
    else:
        create_markdown_artifact(f"{name}: `{address}`", key=key, description=name)


def show_images(run: str, jpeg: str) -> None:
    """Create an image of the run's best images; `jpeg` is a data: URI."""
    key = f"{artifact_key(run)}-images"
    create_image_artifact(jpeg, key=key, description=f"The best of {run}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def artifact_key(text: str) -> str:
    """A name as an artifact key: lower-case letters, digits and dashes."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower())
