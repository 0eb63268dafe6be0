"""A run's books: what was asked for, and how each job ended."""

import hashlib
import json
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

from pipeline.errors import ConfigError, RunError, TooLarge, Unavailable
from pipeline.images import EXTENSIONS, ImageFormat, encode
from pipeline.job import (
    BadRow,
    FrozenModel,
    ImageArray,
    ImageRecord,
    Job,
    Outcome,
    Progress,
    RunSpec,
    Status,
    timestamp,
    version,
)
from pipeline.ports import BLOB_LIMIT, DOCUMENT_LIMIT, Blob, Store
from pipeline.storing import parts
from pipeline.storing.identity import identity
from pipeline.storing.parameters import parameters

READERS = 32
IMAGES_AHEAD = 8
NAMES_SHOWN = 20

_RUN_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,63}")
_JSON = "application/json"
_CANCELLED = "cancelled.json"
_PROGRESS = "progress.json"
_MILESTONES = ("summary.json", _CANCELLED, "run.json")
_GOING = "removed.json"

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_names(store: Store) -> Iterator[str]:
    """Every run in the store, sorted. A folder whose name no run can have is none."""
    return filter(_RUN_NAME.fullmatch, store.folders("runs/"))


class RunBooks:
    """The Books port over a store, and everything else in the folder of one run.

    docs/record.md describes the folder. Raises ConfigError for a name that cannot be a folder's.
    """

    def __init__(self, store: Store, run: str, image_format: ImageFormat = "png") -> None:
        if not _RUN_NAME.fullmatch(run):
            raise ConfigError(
                f"run name {run!r}: up to 64 of a-z, 0-9, '-', '_' and '.', the first one of"
                " a-z, 0-9 and '_'"
            )
        self.store, self.run = store, run
        self.folder = f"runs/{run}"
        self._format: ImageFormat = image_format

    def address(self, name: str = "") -> str:
        """Where a person finds the run's folder, or a file in it."""
        return self.store.address(self.key(name) if name else self.folder)

    def key(self, name: str) -> str:
        """The store's key for a path relative to the run's folder."""
        return f"{self.folder}/{name}"

    def blob(self, name: str) -> bytes:
        """A file of the run's folder. Raises RunError when it is not there."""
        return self.read(name, bytes)

    def read(self, name: str, parse: Callable[[bytes], Result]) -> Result:
        """What `parse` makes of a file. Raises RunError when it is missing or damaged."""
        try:
            return self._parsed(name, parse)
        except KeyError:
            raise RunError(f"{self.address(name)} is missing") from None

    def has(self, name: str) -> bool:
        """Whether the run's folder has such a file."""
        return self.store.has(self.key(name))

    def write(self, name: str, data: bytes, content_type: str) -> None:
        """Put a file into the run's folder."""
        self.store.put(self.key(name), data, content_type=content_type)

    def write_spec(self, spec: RunSpec) -> None:
        """Keep what the run was asked to do."""
        self.write("run.json", _document(spec), _JSON)
        self.__dict__.pop("_renderer", None)

    def spec(self) -> RunSpec:
        """What the run was asked to do. Raises RunError, with the runs there are."""
        if spec := self.standing_spec():
            return spec
        raise RunError(f"there is no run {self.run!r}; {self._other_runs()}")

    def standing_spec(self) -> RunSpec | None:
        """What the run was asked to do; None before it was opened.

        Raises RunError for another run's.
        """
        try:
            spec = self._parsed("run.json", RunSpec.model_validate_json)
        except KeyError:
            return None
        if spec.run != self.run:
            raise RunError(f"{self.address('run.json')} is of run {spec.run!r}")
        return spec

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Keep the figures of the run's latest end."""
        self.write("summary.json", _json(summary), _JSON)

    def summary(self) -> dict[str, Any]:
        """The figures of the run's latest end; empty before the first."""
        try:
            return self._parsed("summary.json", _summary)
        except KeyError:
            return {}

    def write_part(self, edition: str, number: int, rows: Sequence[Job | BadRow]) -> None:
        """Keep a shard's rows, in their order. Parts are counted from 1."""
        data = parts.pack(rows)
        self.write(parts.name(edition, number), data, "application/vnd.apache.parquet")

    def part(self, edition: str, number: int) -> list[Job | BadRow]:
        """A shard's rows. Raises RunError when there is no such part."""
        return self.read(parts.name(edition, number), parts.unpack)

    def documents(self, edition: str, number: int) -> dict[str, str]:
        """A shard's jobs by id, unread: JSON. Raises RunError when there is no such part."""
        return self.read(parts.name(edition, number), parts.documents)

    def left(self, spec: RunSpec) -> int:
        """How many rows of the run have no record."""
        recorded, count = set(self.recorded()), 0
        for number in range(1, spec.parts + 1):
            ids = self.read(parts.name(spec.edition, number), parts.ids)
            count += sum(job_id not in recorded for job_id in ids)
        return count

    def drop_other_parts(self, edition: str) -> None:
        """Remove the parts of every other edition of the run."""
        kept = self.key(f"{parts.FOLDER}{edition}/")
        for key in list(self.store.keys(self.key(parts.FOLDER))):
            if not key.startswith(kept):
                self.store.delete(key)

    def write_progress(self, progress: Progress) -> None:
        """Say how the run goes, while somebody works on it."""
        self.write(_PROGRESS, _document(progress), _JSON)

    def drop_progress(self) -> None:
        """Nobody works on the run any more."""
        self.store.delete(self.key(_PROGRESS))

    def progress(self, within: float) -> Progress | None:
        """How the run goes, as was said in the last `within` seconds; None where nobody did."""
        ages = [blob.age for blob in self.listing(_PROGRESS)]
        if not ages or min(ages) > within:
            return None
        try:
            return self._parsed(_PROGRESS, Progress.model_validate_json)
        except KeyError:
            return None

    def request_cancel(self) -> None:
        """Ask whoever works on the run to stop. Holds until the run is taken up again."""
        self.write(_CANCELLED, b"{}\n", _JSON)

    def withdraw_cancel(self) -> None:
        """The run is taken up again, even where it was to be cancelled or removed."""
        self.store.delete(self.key(_CANCELLED))
        self.store.delete(self.key(_GOING))

    def is_cancelled(self) -> bool:
        """Whether the run was asked to stop."""
        return self.has(_CANCELLED)

    def is_going(self) -> bool:
        """Whether it is being removed, or was when that was interrupted."""
        return self.has(_GOING)

    def age(self) -> float:
        """Seconds since the run was last opened, cancelled or ended."""
        found = [blob.age for name in _MILESTONES for blob in self.listing(name)]
        return min(found, default=0.0)

    def remove(self) -> None:
        """Remove the run with all that it holds; who works on it is asked to stop."""
        self.write(_GOING, b"{}\n", _JSON)
        self.request_cancel()
        last = [self.key(name) for name in (*_MILESTONES, _GOING)]
        with ThreadPoolExecutor(READERS) as pool:
            keys = (key for key in self.store.keys(f"{self.folder}/") if key not in last)
            for _ in in_order(pool, self.store.delete, keys, READERS):
                pass
        for key in last:
            self.store.delete(key)

    def listing(self, prefix: str) -> Iterator[Blob]:
        """The files of the run's folder whose path begins so, with their age, sorted."""
        return self.store.listing(self.key(prefix))

    def recorded(self) -> Iterator[str]:
        """The id of every job that has a record, sorted."""
        folder = self.key("records/")
        for key in self.store.keys(folder):
            yield key.removeprefix(folder).removesuffix(".json")

    def outcome(self, job_id: str) -> Outcome | None:
        """A job's record; None while there is none.

        Raises RunError for one that cannot be read or is another job's.
        """
        try:
            outcome = self._parsed(_record(job_id), Outcome.model_validate_json)
        except KeyError:
            return None
        if not _is_of(outcome, self.run, job_id):
            whose = f"job {outcome.job_id} of run {outcome.run!r}"
            raise RunError(f"{self.address(_record(job_id))} is not its own job's but of {whose}")
        return outcome

    def outcomes(self, job_ids: Iterable[str]) -> Iterator[Outcome]:
        """The records of these jobs in this order, without those that have none.

        Many are read at once; few are held at a time.
        """
        with ThreadPoolExecutor(READERS) as pool:
            for outcome in in_order(pool, self.outcome, job_ids, READERS):
                if outcome:
                    yield outcome

    def ended(self, edition: str, number: int) -> Iterator[tuple[Job | BadRow, Outcome | None]]:
        """A shard's rows by their lines, each with its job's record, if that has one."""
        rows = self.part(edition, number)
        outcomes = {
            found.job_id: found for found in self.outcomes(dict.fromkeys(row.id for row in rows))
        }
        for row in sorted(rows, key=lambda row: row.row):
            yield row, outcomes.get(row.id)

    def images(self, images: Iterable[ImageRecord]) -> Iterator[bytes]:
        """The files of these images, in this order. A few are read at once, and held.

        Raises RunError for one that is missing or is not the one of its record.
        """
        with ThreadPoolExecutor(IMAGES_AHEAD) as pool:
            yield from in_order(pool, self._image, images, IMAGES_AHEAD)

    def commit(
        self, outcome: Outcome, image: ImageArray | None, confirm: Callable[[], None] | None = None
    ) -> Outcome:
        """Store the image, then the record, which says where the image is.

        A record that already stands is another execution's: it is returned, and this image goes
        unless it is the very same file. Our own record, found after a lost answer, names our own
        image. `confirm` is called between image and record, and raises where this execution
        may not write any more. An image that was taken for an orphan and removed meanwhile is put
        again: once a record names it, it stays.
        """
        kept, file = (None, b"") if image is None else self._keep(outcome, image)
        if confirm:
            confirm()
        mine = outcome.model_copy(update={"image": kept})
        key = self.key(_record(outcome.job_id))
        data = _document(mine)
        first = self.store.put(key, data, content_type=_JSON, new=True)
        standing = mine if first else self.outcome(outcome.job_id)
        if standing is None:
            raise Unavailable(f"{self.store.address(key)} vanished while it was read.")
        if kept and (standing.image is None or standing.image.path != kept.path):
            self.store.delete(self.key(kept.path))
        elif kept and not self.has(kept.path):
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
            run=self.run,
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

    def remove_record(self, job_id: str) -> None:
        """Forget how a job ended, so that it can be tried again; its image goes too."""
        outcome = self.outcome(job_id)
        # the record first: a record whose image is gone would be a lie
        self.store.delete(self.key(_record(job_id)))
        if outcome and outcome.image:
            self.store.delete(self.key(outcome.image.path))

    def _image(self, image: ImageRecord) -> bytes:
        data = self.blob(image.path)
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise RunError(f"{self.address(image.path)} is not the image of its record")
        return data

    def _keep(self, outcome: Outcome, image: ImageArray) -> tuple[ImageRecord, bytes]:
        """Store an image; answers what its record says of it, and its file."""
        data = encode(image, self._format, parameters(outcome, self._renderer))
        digest = hashlib.sha256(data).hexdigest()
        path = f"images/{outcome.job_id}-{digest[:12]}.{EXTENSIONS[self._format]}"
        self._put_image(path, data)
        height, width, _ = image.shape
        return ImageRecord(path=path, sha256=digest, width=width, height=height), data

    def _put_image(self, path: str, data: bytes) -> None:
        self.write(path, data, f"image/{self._format}")

    @cached_property
    def store_id(self) -> str:
        """Which store the books are in. Raises StoreError."""
        return identity(self.store)

    @cached_property
    def _renderer(self) -> dict[str, Any]:
        renderer: dict[str, Any] = self.spec().profile.get("renderer", {})
        return renderer

    def _parsed(self, name: str, parse: Callable[[bytes], Result]) -> Result:
        most = DOCUMENT_LIMIT if name.endswith(".json") else BLOB_LIMIT
        try:
            return parse(self.store.get(self.key(name), most))
        except TooLarge as error:
            raise RunError(error.detail) from error
        # OSError is pyarrow's, for a damaged file
        except (ValueError, OSError, RecursionError) as error:
            what = "is damaged or of another version of Pressrun"
            raise RunError(f"{self.address(name)} {what}: {error}") from error

    def _other_runs(self) -> str:
        names = list(islice(run_names(self.store), NAMES_SHOWN + 1))
        shown = ", ".join(names[:NAMES_SHOWN]) + ", …" * (len(names) > NAMES_SHOWN)
        return f"there are {shown}" if names else f"there is none in {self.store.address('')}"


def _is_of(outcome: Outcome, run: str, job_id: str) -> bool:
    """A record names its run and its job, and no image but the job's."""
    ids = {outcome.job_id, outcome.job.id if outcome.job else job_id}
    images = f"images/{job_id}-"
    mine = outcome.image is None or outcome.image.path.startswith(images)
    return outcome.run == run and ids == {job_id} and mine


def _summary(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004 - as for everything else that is damaged
    if not all(isinstance(found.get(status.value, 0), int) for status in Status):
        raise ValueError("what should be counts are none")
    return found


def _record(job_id: str) -> str:
    return f"records/{job_id}.json"


def _document(noun: FrozenModel) -> bytes:
    return noun.model_dump_json(indent=1).encode() + b"\n"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """`function` of each item, in order, with at most `ahead` of them begun and not yet taken."""
    begun = deque[Future[Result]]()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) == ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
