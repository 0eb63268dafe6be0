"""The folder of one run in the store; docs/record.md describes its files."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from typing import Any

from pipeline.errors import RunError
from pipeline.media.image import ImageFormat
from pipeline.ports import Store
from pipeline.record import Progress, RunSpec, Status
from pipeline.records.documents import JSON, document
from pipeline.records.ids import IdSet
from pipeline.records.records import READERS, RunRecords, in_order
from pipeline.records.run_files import RUN_NAME, RunFiles
from pipeline.records.shards import ShardFiles
from pipeline.storage.identity import identity

NAMES_SHOWN = 20

_CANCELLED = "cancelled.json"
_PROGRESS = "progress.json"
_MILESTONES = ("summary.json", _CANCELLED, "run.json")
_GOING = "removed.json"


def run_names(store: Store) -> Iterator[str]:
    """Every run in the store, sorted. Folders with names that no run can have are skipped."""
    return filter(RUN_NAME.fullmatch, store.folders("runs/"))


class RunFolder(RunFiles):
    """A run's specification, progress, summary and flags, with its `shards` and `records`."""

    def __init__(self, store: Store, run: str, image_format: ImageFormat = "png") -> None:
        super().__init__(store, run)
        self.shards = ShardFiles(self)
        self.records = RunRecords(self, self.shards, self.spec, image_format)

    def write_spec(self, spec: RunSpec) -> None:
        """Store the run's specification."""
        self.write("run.json", document(spec), JSON)
        self.records.forget_profile()

    def spec(self) -> RunSpec:
        """The run's specification. Raises RunError, with the names of other runs, without one."""
        if spec := self.standing_spec():
            return spec
        names = list(islice(run_names(self.store), NAMES_SHOWN + 1))
        shown = ", ".join(names[:NAMES_SHOWN]) + ", …" * (len(names) > NAMES_SHOWN)
        others = f"there are {shown}" if names else f"there is none in {self.store.address('')}"
        raise RunError(f"there is no run {self.run!r}; {others}")

    def standing_spec(self) -> RunSpec | None:
        """The run's specification; None before the run is opened.

        Raises RunError for the specification of another run.
        """
        try:
            spec = self.parse("run.json", RunSpec.model_validate_json)
        except KeyError:
            return None
        if spec.run != self.run:
            raise RunError(f"{self.address('run.json')} is of run {spec.run!r}")
        return spec

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Store the figures of the run's latest end."""
        self.write("summary.json", document(summary), JSON)

    def summary(self) -> dict[str, Any]:
        """The figures of the run's latest end; empty before the first."""

        def parse(data: bytes) -> dict[str, Any]:
            found = json.loads(data)
            if not isinstance(found, dict):
                raise ValueError("no object")  # noqa: TRY004 - as for everything else that is damaged
            if not all(isinstance(found.get(status.value, 0), int) for status in Status):
                raise ValueError("what should be counts are none")
            return found

        try:
            return self.parse("summary.json", parse)
        except KeyError:
            return {}

    def write_progress(self, progress: Progress) -> None:
        """Store a progress snapshot of a run that is being worked on."""
        self.write(_PROGRESS, document(progress), JSON)

    def drop_progress(self) -> None:
        """Remove the progress snapshot: nothing works on the run any more."""
        self.store.delete(self.key(_PROGRESS))

    def progress(self, within: float) -> Progress | None:
        """The progress snapshot, if it was written in the last `within` seconds; else None."""
        ages = [blob.age for blob in self.listing(_PROGRESS)]
        if not ages or min(ages) > within:
            return None
        try:
            return self.parse(_PROGRESS, Progress.model_validate_json)
        except KeyError:
            return None

    def left(self, spec: RunSpec) -> int:
        """The number of rows without a record."""
        recorded, count = IdSet(self.records.ids()), 0
        for number in range(1, spec.shards + 1):
            ids = self.shards.ids(spec.fingerprint, number)
            count += sum(job_id not in recorded for job_id in ids.values())
        return count

    def request_cancel(self) -> None:
        """Request that work on the run stops. In effect until the run is resumed."""
        self.write(_CANCELLED, b"{}\n", JSON)

    def withdraw_cancel(self) -> None:
        """Drop a request to cancel or remove the run, which is being resumed."""
        self.store.delete(self.key(_CANCELLED))
        self.store.delete(self.key(_GOING))

    def is_cancelled(self) -> bool:
        """True after a request to cancel the run."""
        return self.has(_CANCELLED)

    def is_going(self) -> bool:
        """True while the run is being removed, or after an interrupted removal."""
        return self.has(_GOING)

    def age(self) -> float:
        """Seconds since the run was last opened, cancelled or ended."""
        found = [blob.age for name in _MILESTONES for blob in self.listing(name)]
        return min(found, default=0.0)

    def remove(self) -> None:
        """Cancel the run, and remove it with all of its files.

        The flag files go last, so that an interrupted removal can be recognised and finished.
        """
        self.write(_GOING, b"{}\n", JSON)
        self.request_cancel()
        last = [self.key(name) for name in (*_MILESTONES, _GOING)]
        with ThreadPoolExecutor(READERS) as pool:
            keys = (key for key in self.store.keys(f"{self.folder}/") if key not in last)
            for _ in in_order(pool, self.store.delete, keys, READERS):
                pass
        for key in last:
            self.store.delete(key)

    @cached_property
    def store_id(self) -> str:
        """The id of the run's store. Raises StoreError."""
        return identity(self.store)
