"""The ports of a job. Implementations are called from many threads at once."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from PIL.Image import Image

from pipeline.job import (
    Against,
    Brief,
    Context,
    Embedding,
    ImageArray,
    InputImage,
    Job,
    JudgeRequest,
    LoadedImage,
    Rejected,
    RenderRequest,
    Score,
)
from pipeline.record import Outcome


class Retriever(Protocol):
    """Finds passages and images in the knowledge base."""

    def retrieve(self, job: Job) -> Context:
        """At most `job.passages` passages and `job.references` images of `job.collection`, best
        first.

        An empty context where nothing matches. Raises JobError for a collection that does not exist
        or does not support the search, and Unavailable when the knowledge base does not answer.
        """
        ...


class Writer(Protocol):
    """Writes the text of a job and, from it, the image prompt."""

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        """One brief with a prompt that is not empty, without URLs and of bounded length; its
        `sources` are the retrieved texts that the model or the template was given. With `rejected`,
        a prompt in place of that one, and a text where a rule forbids it; the same ones from a
        writer that cannot tell what to change.

        Raises JobError when the model wrote nothing usable, Unavailable when it does not answer.
        """
        ...


class Inputs(Protocol):
    """The stored input images of jobs."""

    def keep(self, image: ImageArray, name: str) -> InputImage:
        """Store a candidate in 8 bits, for a later round to begin from; `name` is what errors call
        it. Raises StoreError.
        """
        ...

    def load(self, image: InputImage, width: int, height: int) -> LoadedImage:
        """The image in that size, in pixels; its sides are cropped where its proportions differ.

        Raises JobError where it is gone from the store.
        """
        ...

    def embed(self, image: InputImage) -> Embedding:
        """The image's embedding for the image adapter. Raises JobError likewise, and where the
        profile names no encoder of images.
        """
        ...


class Pruner(Protocol):
    """Drops candidates of a request while they are rendered."""

    @property
    def points(self) -> Sequence[float]:
        """The fractions of the steps after which `keep` is called, ascending, below 1."""
        ...

    def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
        """The indices of the previews to keep. There is one preview per surviving candidate, in
        order.

        Not called when one is left.
        """
        ...


class Renderer(Protocol):
    """Turns a prompt into images."""

    def render(
        self, request: RenderRequest, pruner: Pruner | None = None
    ) -> Sequence[ImageArray | None]:
        """Exactly one image per seed, in order, None for one that the pruner has dropped; a
        seed decides its image, within 2/255, whatever shares the device.

        The pruner is called in the caller's thread. A renderer without previews ignores it and
        renders all. Raises JobError, also for references that it does not support, and Unavailable.
        """
        ...


class Judge(Protocol):
    """Scores how well images show what a job asks for."""

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        """Exactly one score per image, in order; higher is better; never NaN. Without `parts` it is
        its own only part.

        An image that holds non-finite values or is blank is invalid, with the reason. Raises
        NothingToJudge where the request lacks what this judge compares images with.
        """
        ...


class Guard(Protocol):
    """Keeps what is unsafe out of a job. It fails closed: where it cannot decide it raises Blocked.
    Reasons name the guard and the place.
    """

    def check_text(self, text: str, place: Literal["keywords", "prompt"]) -> None:
        """Raise Blocked for a text that must not be rendered, Rewritable where another prompt may
        be.
        """
        ...

    def check_inputs(self, job: Job) -> None:
        """Raise Blocked for an image of the row that must not be used."""
        ...

    def screened(self, context: Context) -> Context:
        """The context without the passages and images that must not be used; each of them is a
        notice in the record. Raises Blocked where one of them forbids the job.
        """
        ...

    def refusals(self, images: Sequence[ImageArray]) -> Sequence[str]:
        """For each rendered image, in order: the reason why it must not be kept, empty where it may
        be, or where it is not finite and cannot be. Raises Blocked where one forbids the job.
        """
        ...


class SourceGuard(Protocol):
    """Keeps what is unsafe out of the knowledge base. It fails closed, as Guard."""

    def check_source(self, text: str, image: Image | None = None) -> None:
        """Raise Blocked for a source that must not be stored."""
        ...


@dataclass(frozen=True)
class Blob:
    """A blob's metadata. `age` is in seconds since it was written, by the store's own clock where
    it has one; never below 0.
    """

    key: str
    bytes: int
    age: float


BLOB_LIMIT = 4 * 1024**3
"""Largest size of a blob that is read into memory, in bytes."""
DOCUMENT_LIMIT = 64 * 1024**2
"""The same for JSON: a record is a few KB, a profile's blocked terms may be a few MB."""


class Store(Protocol):
    """Blobs by key. Keys are relative paths with '/' between their parts.

    Where `conditional` is False, `put` with `new` is a check followed by a write, and the caller
    has to keep other writers away.
    """

    conditional: bool

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        """Write a blob whole or not at all. With `new`, leave an existing blob as it is and return
        False; also when the existing blob is our own and only the server's answer was lost.

        Raises StoreError, with `new` Unconditional where the store cannot refuse to overwrite.
        """
        ...

    def get(self, key: str, most: int = BLOB_LIMIT) -> bytes:
        """The blob. Raises KeyError when there is none, TooLarge before reading more than `most`
        bytes, StoreError when the store fails.
        """
        ...

    def has(self, key: str) -> bool:
        """True where the blob exists. Raises StoreError when the store fails."""
        ...

    def fetch(self, key: str, path: Path) -> None:
        """Write the blob into a file in chunks. Raises as `get`."""
        ...

    def move(self, key: str, target: str) -> bool:
        """Rename the blob, replacing any at `target`; False when it does not exist."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key that begins with `prefix`, sorted, in constant memory where possible."""
        ...

    def listing(self, prefix: str) -> Iterator[Blob]:
        """The blobs of `keys`, in the same order; one removed meanwhile may be left out."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """The names of the folders directly below `prefix`, which ends with '/': each once, sorted,
        without listing the keys in them.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a blob, if it exists."""
        ...

    def sweep(self, prefix: str, older: float) -> int:
        """Remove unfinished writes that are older than `older` seconds below `prefix`, which ends
        with '/' or is empty; no blob is removed. Returns the number removed.
        """
        ...

    def address(self, key: str) -> str:
        """The blob's path or URL, for people."""
        ...


class Records(Protocol):
    """Stores a run's outcomes."""

    def commit(self, outcome: Outcome, image: ImageArray | None) -> Outcome:
        """Store the image, then the record. The first record of a job wins; returns the stored
        outcome, which may be another execution's.
        """
        ...


@dataclass(frozen=True)
class Ports:
    """Everything `run_job` needs, wired by `assemble`. `models` are the digests by role, for each
    of the profile's renderers, whose name is empty for the one of other jobs; `weighted` are those
    in whose prompts brackets weigh words. A second round looks for what is missing of the text that
    `judge_against` names, the first judge's.
    """

    guard: Guard
    retriever: Retriever
    writer: Writer
    inputs: Inputs
    renderer: Renderer
    judge: Judge
    records: Records
    run: str
    judge_against: Against
    models: Mapping[str, dict[str, str]]
    weighted: Collection[str] = ()
