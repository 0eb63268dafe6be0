"""The real stages over a folder of their own, with the umpire beside them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, track

from benchmarks.common import EXAMPLE
from examples.shapes import umpire
from examples.shapes.world import Scene
from flows.runs.open import asked_for
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.knowledge import open_library
from pipeline.assemble.stores import open_run_folder
from pipeline.job import ImageArray, Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.ports import Ports, Retriever
from pipeline.profile import Profile
from pipeline.record import Outcome, Status
from pipeline.retrieval.ingest import Library, ingest
from pipeline.run import run_job
from pipeline.settings import Settings

Rows = Iterable[Mapping[str, Any]]


class Album:
    """The Books port in memory: what jobs keep, by their ids."""

    def __init__(self) -> None:
        self.images: dict[str, ImageArray] = {}

    def commit(self, outcome: Outcome, image: ImageArray | None) -> Outcome:
        """Keep the image; no record is written, so the same job may be run again."""
        if image is not None:
            self.images[outcome.job_id] = image
        return outcome


@dataclass(frozen=True)
class Kept:
    """The end of a job, and the umpire's reading of its image; without one it sees nothing."""

    outcome: Outcome
    reading: Scene | None

    @property
    def accepted(self) -> bool:
        return self.outcome.status is Status.ACCEPTED

    def shows(self, look: str) -> bool:
        """True if the image shows all that the look says."""
        return self.reading is not None and umpire.confirms(self.reading, look)


class Chain:
    """The example's stages, wired as in a worker, over Qdrant's local mode in a folder.

    That serves one client at a time: all is ingested before the first job runs.
    """

    def __init__(self, workdir: Path, profile: str = "shapes") -> None:
        self._jobs, self.sources = workdir / "jobs.jsonl", workdir / "sources"
        self.sources.mkdir()
        self._settings = Settings(
            profile=profile, home=workdir / "home", store=str(workdir / "out"), qdrant_url=""
        )
        self._umpire = umpire.load(EXAMPLE / "models" / "umpire")

    @property
    def profile(self) -> Profile:
        """The profile of the jobs."""
        return self._settings.chosen_profile

    def library(self) -> Library:
        """The knowledge base, to be closed before a job runs."""
        return open_library(self._settings, self.profile)

    def jobs(self, rows: Rows) -> list[Job]:
        """Rows of a job file as jobs. Raises ValueError where one is no job."""
        write_rows(self._jobs, rows)
        jobs = list(read_jobs(self._jobs, self.profile, Overrides()))
        if bad := [job for job in jobs if not isinstance(job, Job)]:
            raise ValueError(bad[0].reason)
        return [job for job in jobs if isinstance(job, Job)]

    @cached_property
    def ports(self) -> Ports:
        """A worker's ports; the models are loaded at their first use."""
        write_rows(self._jobs, [{"keywords": "none"}])
        run_folder = open_run_folder(self._settings, "benchmark")
        spec = asked_for(self._jobs, Overrides(), self._settings, run_folder)
        return Assembly(self._settings).ports(spec)

    def run(
        self, title: str, jobs: Sequence[Job], retriever: Retriever | None = None
    ) -> list[Kept]:
        """Run the jobs, many at a time, where wanted with another retriever."""
        album = Album()
        ports = replace(self.ports, records=album, retriever=retriever or self.ports.retriever)
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            ended = pool.map(partial(run_job, ports=ports), jobs)
            outcomes = list(track(ended, title, len(jobs), console=Console(stderr=True)))
        seen = dict(zip(album.images, self.read(album.images.values()), strict=True))
        return [Kept(outcome, seen.get(outcome.job_id)) for outcome in outcomes]

    def read(self, images: Iterable[ImageArray]) -> list[Scene]:
        """The umpire's reading of each image."""
        found = [(image * 255).round().astype(np.uint8) for image in images]
        return self._umpire.read(np.stack(found)) if found else []


def write_rows(path: Path, rows: Rows) -> Path:
    """A JSONL file of the rows."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def fill(library: Library, collection: str, path: Path, count: int) -> None:
    """Ingest a file or folder of so many sources. Raises ValueError where one is bad."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"ingest {collection}", total=count)
        advance = partial(progress.advance, task)
        report = ingest(library, path, collection, advance)
    if report.bad:
        raise ValueError(f"{collection}: {report.bad[0].reason}")
