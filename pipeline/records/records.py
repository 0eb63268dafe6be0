"""The records of a run: the outcome of each job, and the kept images."""

import hashlib
import uuid
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

from pipeline.errors import RunError, Unavailable
from pipeline.job import BadRow, ImageArray
from pipeline.media.image import EXTENSIONS, ImageFormat, encode
from pipeline.media.perceptual import perceptual_hash
from pipeline.record import ImageRecord, Outcome, RunSpec, Status, timestamp, version
from pipeline.records.documents import JSON, document
from pipeline.records.parameters import parameters
from pipeline.records.run_files import RunFiles
from pipeline.records.shards import ShardFiles

READERS = 32
AT_ONCE = 8
"""Records that a thread reads one after another: a folder answers sooner than a thread begins."""
IMAGES_AHEAD = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


class RunRecords:
    """The Records port over a run's folder: create-once records, each written after its image."""

    def __init__(
        self,
        files: RunFiles,
        shards: ShardFiles,
        spec: Callable[[], RunSpec],
        image_format: ImageFormat,
    ) -> None:
        self._files, self._shards, self._spec = files, shards, spec
        self._format: ImageFormat = image_format

    def ids(self) -> Iterator[str]:
        """The id of every job that has a record, sorted."""
        folder = self._files.key("records/")
        for key in self._files.store.keys(folder):
            yield key.removeprefix(folder).removesuffix(".json")

    def outcome(self, job_id: str) -> Outcome | None:
        """A job's record; None while there is none.

        Raises RunError for one that cannot be read or belongs to another job.
        """
        try:
            outcome = self._files.parse(_record(job_id), Outcome.model_validate_json)
        except KeyError:
            return None
        # it has to name this run, this job, and no other job's image
        ids = {outcome.job_id, outcome.job.id if outcome.job else job_id}
        own = outcome.image is None or outcome.image.path.startswith(f"images/{job_id}-")
        if outcome.run != self._files.run or ids != {job_id} or not own:
            whose = f"job {outcome.job_id} of run {outcome.run!r}"
            raise RunError(
                f"{self._files.address(_record(job_id))} is not its own job's but of {whose}"
            )
        return outcome

    def outcomes(self, job_ids: Iterable[str]) -> Iterator[Outcome]:
        """The records of these jobs, in this order; jobs without a record are skipped.

        Records are read concurrently, with a bounded number in memory.
        """
        ids = iter(job_ids)

        def read(some: list[str]) -> list[Outcome | None]:
            return [self.outcome(job_id) for job_id in some]

        with ThreadPoolExecutor(READERS) as pool:
            some = iter(lambda: list(islice(ids, AT_ONCE)), [])
            for found in in_order(pool, read, some, READERS):
                yield from filter(None, found)

    def ended(
        self, fingerprint: str, number: int, recorded: Container[str] | None = None
    ) -> Iterator[Outcome | None]:
        """The record of each row of a shard, with the row's own line, by lines; None for a row
        whose job has none yet. Ids that are not in `recorded` are not looked for.
        """
        ids = self._shards.ids(fingerprint, number)
        jobs = dict.fromkeys(ids.values())
        found = self.outcomes(job for job in jobs if recorded is None or job in recorded)
        outcomes = {outcome.job_id: outcome for outcome in found}
        for row, job_id in sorted(ids.items()):
            outcome = outcomes.get(job_id)
            if outcome and outcome.row != row:
                outcome = outcome.model_copy(update={"row": row})
            yield outcome

    def images(self, images: Iterable[ImageRecord]) -> Iterator[bytes]:
        """The files of these images, in this order, read a few ahead.

        Raises RunError for one that is missing or differs from its record.
        """

        def read(image: ImageRecord) -> bytes:
            data = self._files.blob(image.path)
            if hashlib.sha256(data).hexdigest() != image.sha256:
                raise RunError(f"{self._files.address(image.path)} is not the image of its record")
            return data

        with ThreadPoolExecutor(IMAGES_AHEAD) as pool:
            yield from in_order(pool, read, images, IMAGES_AHEAD)

    def commit(
        self, outcome: Outcome, image: ImageArray | None, confirm: Callable[[], None] | None = None
    ) -> Outcome:
        """Store the image, then the record, which names the image. Returns the job's stored record.

        Where another execution has committed a record first, that one is returned, and this image
        is removed unless it is the same file. After a lost answer the record found may be our own,
        which names our own image. `confirm` is called between image and record; it raises where
        this execution has lost its lease. An image removed meanwhile as an orphan is stored again:
        no image that a record names is removed.
        """
        kept, file = None, b""
        if image is not None:
            file = encode(image, self._format, parameters(outcome, self._renderer(outcome)))
            digest = hashlib.sha256(file).hexdigest()
            path = f"images/{outcome.job_id}-{digest[:12]}.{EXTENSIONS[self._format]}"
            height, width, _ = image.shape
            kept = ImageRecord(
                path=path,
                sha256=digest,
                width=width,
                height=height,
                perceptual_hash=perceptual_hash(image),
            )
            self._put_image(path, file)
        if confirm:
            confirm()
        mine = outcome.model_copy(update={"image": kept})
        key = self._files.key(_record(outcome.job_id))
        data = document(mine)
        first = self._files.store.put(key, data, content_type=JSON, new=True)
        standing = mine if first else self.outcome(outcome.job_id)
        if standing is None:
            raise Unavailable(f"{self._files.store.address(key)} vanished while it was read.")
        if kept and (standing.image is None or standing.image.path != kept.path):
            self._files.store.delete(self._files.key(kept.path))
        elif kept and not self._files.has(kept.path):
            self._put_image(kept.path, file)
        return standing

    def reject_all(self, bad: Iterable[BadRow]) -> None:
        """Commit the outcomes of rows that could not become jobs, many at once."""
        with ThreadPoolExecutor(READERS) as pool:
            for _ in in_order(pool, self.reject, bad, READERS):
                pass

    def reject(self, bad: BadRow) -> Outcome:
        """Commit the outcome of a row that could not become a job."""
        outcome = Outcome(
            run=self._files.run,
            job_id=bad.id,
            status=Status.INVALID,
            reason=f"column {bad.column!r}: {bad.reason}" if bad.column else bad.reason,
            row=bad.row,
            keywords=bad.keywords,
            attempt=uuid.uuid4().hex,
            created_at=timestamp(),
            version=version(),
        )
        return self.commit(outcome, None)

    def remove(self, job_id: str) -> None:
        """Remove a job's record and its image, so that the job can run again."""
        outcome = self.outcome(job_id)
        # the record first: a record must never name a missing image
        self._files.store.delete(self._files.key(_record(job_id)))
        if outcome and outcome.image:
            self._files.store.delete(self._files.key(outcome.image.path))

    def _put_image(self, path: str, data: bytes) -> None:
        self._files.write(path, data, f"image/{self._format}")

    def forget_profile(self) -> None:
        """Drop the cached profile after the run's spec was replaced."""
        self.__dict__.pop("_profile", None)

    @cached_property
    def _profile(self) -> dict[str, Any]:
        return self._spec().profile

    def _renderer(self, outcome: Outcome) -> dict[str, Any]:
        """The section of the renderer that made an outcome's image."""
        section = self._profile.get("renderer", {})
        if outcome.job and outcome.job.model:
            section = self._profile.get("renderers", {}).get(outcome.job.model, {})
        return dict(section)


def _record(job_id: str) -> str:
    return f"records/{job_id}.json"


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Map `function` over the items in a pool, in order, at most `ahead` results in advance."""
    begun = deque[Future[Result]]()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) == ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
