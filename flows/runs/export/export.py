"""Exporting a run's records and images to common formats."""

import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track

from flows.runs.dedupe import SeenIds
from flows.runs.export import folders, tables
from flows.runs.export.lines import Line, line_of
from flows.runs.export.target import replacing
from pipeline.assemble import open_run_folder
from pipeline.job import BadRow, ImageRecord, Job, Outcome, RunSpec, Status
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings

Form = Literal["parquet", "jsonl", "webdataset", "imagefolder"]

NAMES: dict[Form, str] = {
    "parquet": "{run}.parquet",
    "jsonl": "{run}.jsonl",
    "webdataset": "{run}-webdataset",
    "imagefolder": "{run}-imagefolder",
}
"""The default names of exports, in the current folder."""


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
    spec, path = run_folder.spec(), out or Path(NAMES[form].format(run=run))
    if statuses is None:
        statuses = list(Status) if form in ("parquet", "jsonl") else [Status.ACCEPTED]
    jobs = Jobs(run_folder, spec, statuses)
    figures = dict[str, int]()
    match form:
        case "jsonl":
            with replacing(path, partial(tables.is_jsonl_of, run)) as place:
                tables.write_jsonl(place, jobs.lines())
        case "parquet":
            with replacing(path, partial(tables.is_parquet_of, run)) as place:
                tables.write_parquet(place, run, jobs.lines())
        case "webdataset":
            with replacing(path, partial(folders.is_folder_of, run, form)) as place:
                figures["shards"] = folders.write_webdataset(place, run, jobs.images())
        case "imagefolder":
            with replacing(path, partial(folders.is_folder_of, run, form)) as place:
                folders.write_imagefolder(place, run, jobs.images())
    return {"run": run, "to": form, "path": str(path), **jobs.report(), **figures}


@dataclass
class Jobs:
    """The jobs of a run with these statuses, each once, in the order of the job file."""

    run_folder: RunFolder
    spec: RunSpec
    statuses: Collection[Status]

    def __post_init__(self) -> None:
        self._counts = Counter[str]()

    def lines(self) -> Iterator[Line]:
        """The line of each job."""
        for row, outcome in self._chosen():
            self._counts["jobs"] += 1
            yield line_of(row, outcome, self.run_folder)

    def images(self) -> Iterator[folders.Entry]:
        """The line of each job with an image, the suffix and the image. Raises RunError if it is
        damaged.
        """
        with_lines, with_images = tee(self._kept())
        files = self.run_folder.records.images(image for _, _, image in with_images)
        for (row, outcome, image), file in zip(with_lines, files, strict=True):
            self._counts["jobs"] += 1
            yield line_of(row, outcome, self.run_folder), image.path.rpartition(".")[2], file

    def report(self) -> dict[str, int]:
        """The numbers of jobs written, of jobs left out without an image, and of rows without an
        outcome.
        """
        return {name: self._counts[name] for name in ("jobs", "without_image", "unfinished")}

    def _kept(self) -> Iterator[tuple[Job | BadRow, Outcome, ImageRecord]]:
        for row, outcome in self._chosen():
            if outcome.image:
                yield row, outcome, outcome.image
            else:
                self._counts["without_image"] += 1

    def _chosen(self) -> Iterator[tuple[Job | BadRow, Outcome]]:
        seen = SeenIds()
        rows = (
            pair
            for shard in range(1, self.spec.shards + 1)
            for pair in self.run_folder.records.ended(self.spec.fingerprint, shard)
        )
        console = Console(file=sys.stderr)
        for row, outcome in track(rows, "export", self.spec.rows, console=console):
            if outcome is None:
                self._counts["unfinished"] += 1
            elif outcome.status in self.statuses and seen.add(row.id):
                yield row, outcome
