"""Which runs there are and how each stands, told from a few of their files."""

from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any

from flows.dispatch.heartbeat import STALE
from pipeline.assemble import open_store, reach_store
from pipeline.errors import RunError
from pipeline.job import Progress, RunSpec, Status
from pipeline.ports import Store
from pipeline.records.records import READERS
from pipeline.records.run_folder import RunFolder, run_names
from pipeline.settings import Settings

SHOWN = 20
"""Runs that are listed where not all are asked for."""


class State(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    DAMAGED = "damaged"


OPEN = frozenset({State.STOPPED, State.CANCELLED, State.INTERRUPTED})
"""What can be gone on with."""


def list_runs(settings: Settings, everything: bool) -> dict[str, Any]:
    """The runs of the store, the latest first, and how many more there are."""
    reach_store(settings)
    store = open_store(settings)
    names = newest(store)
    shown = names if everything else names[:SHOWN]
    with ThreadPoolExecutor(READERS) as pool:
        runs = list(pool.map(lambda name: _line(RunFolder(store, name)), shown))
    return {"runs": runs, "more": len(names) - len(shown)}


def newest(store: Store) -> list[str]:
    """The names of the runs, the one that was opened last first; damaged ones are behind."""
    with ThreadPoolExecutor(READERS) as pool:
        opened = pool.map(lambda name: (_opened(RunFolder(store, name)), name), run_names(store))
        found = [(when, name) for when, name in opened if when is not None]
    return [name for _, name in sorted(found, reverse=True)]


def state_of(
    run_folder: RunFolder, spec: RunSpec, progress: Progress | None, left: int = 0
) -> State:
    """How a run stands, which is worked on where there is `progress`. That it is done is what its
    summary says, unless rows are known to be `left`.
    """
    if progress:
        return State.RUNNING
    summary = run_folder.summary()
    ended = _outcomes(spec, summary)
    if sum(ended.values()) == spec.rows and not left:
        return State.DONE
    if run_folder.is_cancelled():
        return State.CANCELLED
    return State.STOPPED if ended and "stopped" in summary else State.INTERRUPTED


def _opened(run_folder: RunFolder) -> str | None:
    """When; None where it is still being opened, or removed; empty where that is damaged."""
    try:
        spec = run_folder.standing_spec()
    except RunError:
        return ""
    return spec.created_at if spec else None


def _line(run_folder: RunFolder) -> dict[str, Any]:
    try:
        spec, progress = run_folder.spec(), run_folder.progress(STALE)
        state = state_of(run_folder, spec, progress)
        ended = _outcomes(spec, run_folder.summary())
        return {
            "run": run_folder.run,
            "state": state.value,
            "rows": spec.rows,
            "done": _done(run_folder, spec, state, progress),
            "outcomes": {name: count for name, count in ended.items() if count},
            "file": spec.job_file,
            "opened": f"{spec.created_at[:16]}Z",
        }
    except RunError:
        unknown = ("rows", "done", "outcomes", "file", "opened")
        return {"run": run_folder.run, "state": State.DAMAGED.value, **dict.fromkeys(unknown)}


def _done(run_folder: RunFolder, spec: RunSpec, state: State, progress: Progress | None) -> int:
    if progress:
        return progress.done
    return spec.rows if state is State.DONE else spec.rows - run_folder.left(spec)


def _outcomes(spec: RunSpec, summary: dict[str, Any]) -> dict[str, int]:
    """How the rows had ended at the latest end; empty where the run is another one since."""
    if summary.get("fingerprint") != spec.fingerprint:
        return {}
    return {status.value: summary.get(status.value, 0) for status in Status}
