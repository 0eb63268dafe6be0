"""Exporting a run's records and images to common formats."""

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from rich.console import Console
from rich.progress import track

from flows.runs.export import formats
from flows.runs.open import as_far_as_read
from pipeline.assemble.stores import open_run_folder
from pipeline.errors import PressrunError
from pipeline.record import Outcome, Status
from pipeline.records.columns import COLUMNS, Column, line_of
from pipeline.records.ids import IdSet
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings

Form = Literal["parquet", "jsonl", "webdataset", "imagefolder"]

DEFAULT_PATHS: dict[Form, str] = {
    "parquet": "{run}.parquet",
    "jsonl": "{run}.jsonl",
    "webdataset": "{run}-webdataset",
    "imagefolder": "{run}-imagefolder",
}
NAMES = [
    "job_id", "run", "row", "name", "keywords", "style", "collection", "status", "reason", "text",
    "prompt", "negative", "score", "threshold", "seed", "steps", "guidance", "image_path", "sha256",
    "width", "height", "renderer", "seconds", "device_seconds", "created_at", "candidates",
    "sources", "notices", "models", "meta",
]  # fmt: skip
"""The columns, the same in every format."""


class ExportError(PressrunError):
    """The export would write over something else; name another place with --out."""


def export_run(
    run: str,
    form: Form,
    settings: Settings,
    out: Path | None = None,
    statuses: Collection[Status] | None = None,
) -> dict[str, Any]:
    """Write a run in a format; reports the path and the number of jobs.

    Without `statuses` tables hold every job, folders of images the accepted ones. One shard's
    records and a few images are in memory at a time. Raises RunError and ExportError.
    """
    run_folder = open_run_folder(settings, run)
    path = out or Path(DEFAULT_PATHS[form].format(run=run))
    if statuses is None:
        statuses = list(Status) if form in ("parquet", "jsonl") else [Status.ACCEPTED]
    jobs = ExportedJobs(run_folder, statuses)
    figures = dict[str, int]()
    match form:
        case "jsonl":
            with replacing(path, partial(formats.is_jsonl_of, run)) as place:
                formats.write_jsonl(place, jobs.lines())
        case "parquet":
            with replacing(path, partial(formats.is_parquet_of, run)) as place:
                formats.write_parquet(place, run, jobs.columns, jobs.outcomes())
        case "webdataset":
            with replacing(path, partial(formats.is_folder_of, run, form)) as place:
                figures["shards"] = formats.write_webdataset(place, run, jobs.images())
        case "imagefolder":
            with replacing(path, partial(formats.is_folder_of, run, form)) as place:
                formats.write_imagefolder(place, run, jobs.images())
    return {"run": run, "to": form, "path": str(path), **jobs.report(), **figures}


class ExportedJobs:
    """The jobs of a run with these statuses, each once, in the order of the job file.

    Of `outcomes`, `lines` and `images` one is read, once.
    """

    def __init__(self, run_folder: RunFolder, statuses: Collection[Status]) -> None:
        self._run_folder, self._statuses = run_folder, statuses
        self._spec = as_far_as_read(run_folder)
        self._counts = Counter[str]()

        def address(outcome: Outcome) -> str | None:
            return run_folder.address(outcome.image.path) if outcome.image else None

        known = {**COLUMNS, "image_path": Column(pa.string(), address, nullable=True)}
        self.columns = {name: known[name] for name in NAMES}

    def outcomes(self, with_image: bool = False) -> Iterator[Outcome]:
        """The outcome of each job, or of each that has an image."""
        seen = IdSet()
        rows = (
            outcome
            for shard in range(1, self._spec.shards + 1)
            for outcome in self._run_folder.records.ended(self._spec.fingerprint, shard)
        )
        console = Console(file=sys.stderr)
        for outcome in track(rows, "export", self._spec.rows, console=console):
            if outcome is None:
                self._counts["unfinished"] += 1
            elif outcome.status in self._statuses and seen.add(outcome.job_id):
                left_out = with_image and outcome.image is None
                self._counts["without_image" if left_out else "jobs"] += 1
                if not left_out:
                    yield outcome

    def lines(self) -> Iterator[formats.Line]:
        """The line of each job."""
        return (line_of(self.columns, outcome) for outcome in self.outcomes())

    def images(self) -> Iterator[formats.Entry]:
        """The line of each job with an image, and the image's file. Raises RunError if it is
        missing or damaged.
        """
        outcomes, ahead = tee(self.outcomes(with_image=True))
        files = self._run_folder.records.images(each.image for each in ahead if each.image)
        for outcome, file in zip(outcomes, files, strict=True):
            yield line_of(self.columns, outcome), file

    def report(self) -> dict[str, int]:
        """The numbers of jobs written, of jobs left out without an image, and of rows without an
        outcome.
        """
        return {name: self._counts[name] for name in ("jobs", "without_image", "unfinished")}


@contextmanager
def replacing(path: Path, is_own: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary path beside `path` for a file or a folder, which replaces `path` at the end.

    After an error or an interruption `path` is as before. Raises ExportError if `path` exists
    and is not `is_own`.
    """
    if os.path.lexists(path) and not is_own(path):
        raise ExportError(f"{path} is there already and no export of this run and format.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield temporary / "new"
        if path.is_dir():  # which a rename does not replace
            path.rename(temporary / "old")
        (temporary / "new").replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
