"""What plugs into a job. Each port may be called from many threads at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.job import Brief, Context, ImageArray, Job, Outcome, RenderRequest, Score


class Retriever(Protocol):
    """Finds what the knowledge base says about a job."""

    def retrieve(self, job: Job) -> Context:
        """At most `job.passages` passages and `job.references` images of `job.collection`, best
        first.

        Nothing fits: an empty context. Raises JobError for a collection that does not exist or
        cannot give what is asked, and Unavailable when the knowledge base does not answer.
        """
        ...


class Writer(Protocol):
    """Writes the text of a job and, from it, the image prompt."""

    def write(self, job: Job, context: Context) -> Brief:
        """One brief with a prompt that is not empty, without URLs and of bounded length.

        Raises JobError when the model wrote nothing usable, Unavailable when it does not answer.
        """
        ...


class Pruner(Protocol):
    """Drops candidates of a request while they are rendered."""

    @property
    def points(self) -> Sequence[float]:
        """The parts of the steps after which it wants to see who is left, rising, below 1."""
        ...

    def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
        """Which go on, by their place among these previews: one for each that is left, in order.

        It is not asked about a last one.
        """
        ...


class Renderer(Protocol):
    """Turns a prompt into images."""

    def render(
        self, request: RenderRequest, pruner: Pruner | None = None
    ) -> Sequence[ImageArray | None]:
        """Exactly one image per seed, in order, None for one that the pruner has dropped; a
        seed decides its image, within 2/255, whatever shares the device.

        The pruner is asked in the caller's thread. A renderer that cannot show previews does not
        ask it, and renders all. Raises JobError, for images that it cannot follow too, and
        Unavailable.
        """
        ...


class Judge(Protocol):
    """Judges how well images show a text."""

    def score(self, images: Sequence[ImageArray], text: str) -> Sequence[Score]:
        """Exactly one score per image, in order; higher is better; never NaN.

        An image that holds non-finite values or is blank is invalid, with the reason.
        """
        ...


class Guard(Protocol):
    """Refuses what must not be made. Fails closed: a guard that cannot judge raises Blocked."""

    def check_text(self, text: str) -> None:
        """Raises Blocked for keywords or a prompt that must not be rendered."""
        ...


@dataclass(frozen=True)
class Blob:
    """What a store knows of a blob without reading it. `age` is in seconds since it was written,
    by the store's own clock where it tells the time; never below 0.
    """

    key: str
    bytes: int
    age: float


BLOB_LIMIT = 4 * 1024**3
"""Bytes of a blob that is read into memory."""
DOCUMENT_LIMIT = 64 * 1024**2
"""The same of JSON: a record is a few KB, and a profile's blocked terms may be a few MB."""


class Store(Protocol):
    """Blobs by key. Keys are relative paths with '/' between their parts.

    Where `conditional` is False, `put` with `new` only looks before it writes, and the caller has
    to keep other writers away.
    """

    conditional: bool

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        """Write a blob whole or not at all. With `new`, an existing blob is left as it is and the
        answer is False; so it is when the answer to our own write was lost, and the blob is ours.

        Raises StoreError, with `new` Unconditional where the store cannot refuse to overwrite.
        """
        ...

    def get(self, key: str, most: int = BLOB_LIMIT) -> bytes:
        """The blob. Raises KeyError when there is none, TooLarge, unread, for one of more than
        `most` bytes, StoreError when the store fails.
        """
        ...

    def has(self, key: str) -> bool:
        """Whether there is such a blob. Raises StoreError when the store fails."""
        ...

    def fetch(self, key: str, path: Path) -> None:
        """Write the blob into a file, a piece at a time. Raises as `get`."""
        ...

    def move(self, key: str, target: str) -> bool:
        """Give the blob another key, where it replaces what stood there; False when it is gone."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key that begins with `prefix`, sorted, in constant memory where possible."""
        ...

    def listing(self, prefix: str) -> Iterator[Blob]:
        """The blobs of `keys`, in the same order; one that goes away meanwhile may be left out."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """What stands between `prefix`, which ends with '/', and the next '/' of the keys below it,
        each name once, sorted, without listing those keys.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a blob; one that is not there is fine."""
        ...

    def sweep(self, prefix: str, older: float) -> int:
        """Remove what writers that died left half-written below `prefix`, which ends with '/' or is
        empty, and what is older than `older` seconds. No blob goes. Answers how many were removed.
        """
        ...

    def address(self, key: str) -> str:
        """Where a person finds the blob: a path or a URL."""
        ...


class Records(Protocol):
    """Where a run's outcomes are kept."""

    def commit(self, outcome: Outcome, image: ImageArray | None) -> Outcome:
        """Store image, then record. The first record of a job stands: what is returned is the
        outcome that is kept, which may be another execution's.
        """
        ...


@dataclass(frozen=True)
class Ports:
    """Everything `run_job` needs, wired by `assemble`."""

    guard: Guard
    retriever: Retriever
    writer: Writer
    renderer: Renderer
    judge: Judge
    records: Records
    run: str
    judge_against: str
    models: dict[str, str]
