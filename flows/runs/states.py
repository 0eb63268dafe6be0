"""The runs of a store and the state of each, read from a few of their files."""

from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any

from flows.dispatch.heartbeat import STALE
from flows.runs.open import as_far_as_read
from pipeline.assemble.stores import open_store, reach_store
from pipeline.errors import RunError
from pipeline.ports import Store
from pipeline.record import Progress, RunSpec, Status
from pipeline.records.records import READERS
from pipeline.records.run_folder import RunFolder, run_names
from pipeline.settings import Settings

SHOWN = 20
"""Runs that are listed by default."""


class State(StrEnum):
    """The state of a run."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    DAMAGED = "damaged"


OPEN = frozenset({State.STOPPED, State.CANCELLED, State.INTERRUPTED})
"""States of a run that can be resumed."""


def list_runs(settings: Settings, everything: bool) -> dict[str, Any]:
    """The runs of the store, the latest first, and the number of runs not listed."""
    reach_store(settings)
    store = open_store(settings)
    names = newest(store)
    shown = names if everything else names[:SHOWN]
    with ThreadPoolExecutor(READERS) as pool:
        runs = list(pool.map(lambda name: _line(RunFolder(store, name)), shown))
    return {"runs": runs, "more": len(names) - len(shown)}


def newest(store: Store) -> list[str]:
    """The names of the runs, the one opened last first, damaged ones at the end."""

    def opened(name: str) -> tuple[str, str] | None:
        try:
            spec = RunFolder(store, name).standing_spec()
        except RunError:
            return "", name
        # no spec: the run is being opened or removed
        return (spec.created_at, name) if spec else None

    with ThreadPoolExecutor(READERS) as pool:
        found = [entry for entry in pool.map(opened, run_names(store)) if entry]
    return [name for _, name in sorted(found, reverse=True)]


def state_of(
    run_folder: RunFolder, spec: RunSpec, progress: Progress | None, left: int = 0
) -> State:
    """The state of a run: running if there is `progress`, done by its summary unless rows are known
    to be `left`.
    """
    if progress:
        return State.RUNNING
    summary = run_folder.summary()
    ended = _outcomes(spec, summary)
    if spec.rows and sum(ended.values()) == spec.rows and not left:
        return State.DONE
    if run_folder.is_cancelled():
        return State.CANCELLED
    return State.STOPPED if ended and "stopped" in summary else State.INTERRUPTED


def _line(run_folder: RunFolder) -> dict[str, Any]:
    try:
        spec, progress = as_far_as_read(run_folder), run_folder.progress(STALE)
        state = state_of(run_folder, spec, progress)
        ended = _outcomes(spec, run_folder.summary())
        if progress:
            done = progress.done
        else:
            done = spec.rows - (0 if state is State.DONE else run_folder.left(spec))
        return {
            "run": run_folder.run,
            "state": state.value,
            "rows": spec.rows,
            "done": done,
            "outcomes": {name: count for name, count in ended.items() if count},
            "file": spec.job_file,
            "opened": f"{spec.created_at[:16]}Z",
        }
    except RunError:
        unknown = ("rows", "done", "outcomes", "file", "opened")
        return {"run": run_folder.run, "state": State.DAMAGED.value, **dict.fromkeys(unknown)}


def _outcomes(spec: RunSpec, summary: dict[str, Any]) -> dict[str, int]:
    """The counts by status in the summary; empty if the summary has another fingerprint."""
    if summary.get("fingerprint") != spec.fingerprint:
        return {}
    return {status.value: summary.get(status.value, 0) for status in Status}
