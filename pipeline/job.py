"""A job and what its stages hand on: frozen values, copied to be changed."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, InstanceOf, model_validator

ImageArray = NDArray[np.float32]
"""[height, width, 3], RGB in 0..1. It may hold NaN until the judge has called it valid."""

Embedding = tuple[float, ...]
"""An image's embedding, in the image adapter's width."""

BatchKey = tuple[str, int, int, int]
"""The model, width, height and number of references that steer the render."""

SEED_SPACE = 2**64
MASKED = 0.5
"""Luminance from which on a mask's pixel is painted anew."""

_ID = r"^[0-9A-Za-z_]{1,64}$"
JOB_ID = re.compile(_ID)
Id = Annotated[str, Field(pattern=_ID)]
"""A job's id, which also names its record's file."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

PLAIN_NAME = r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,99})?$"
"""The name of a stored thing, or none: never a path or an address."""

FILE_NAME = r"^[^./\\:|<>\s\x00-\x1f][^/\\:|<>\x00-\x1f]{0,99}$"
"""The name of a file without its suffix: no path, and not hidden."""

MOST_EMBEDDINGS = 4

Setter = Literal["row", "profile", "run"]
TextMode = Literal["generated", "retrieved", "keywords"]
ContestMode = Literal["best_of", "first_above", "race", "race_above"]


class FrozenModel(BaseModel):
    """A frozen value that refuses unknown fields, and numbers that JSON cannot hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rung(FrozenModel):
    """A point of a race: after the fraction `at` of the steps, the fraction `keep` of the rivals
    goes on.
    """

    at: float = Field(gt=0, lt=1)
    keep: float = Field(gt=0, lt=1, description="rounded up; at least one goes on")


@dataclass(frozen=True)
class Settable:
    """The mark on a field of `Job` that says who may set it, and what they call it.

    `row` is a column of the job file, `profile` a key of its `[defaults]`, and `run` an option of
    the command line, of the Prefect form and of a file in the inbox. A row has precedence over a
    run, a run over the profile. `default` is the profile's; `...` where a profile has to name it.
    """

    by: tuple[Setter, ...] = ("row",)
    default: Any = ...
    column: str = ""
    """The column's name, where it is not the field's own."""
    elsewhere: tuple[str, ...] = ()
    """Names that other tools have for the column, in snake case."""
    template: bool = False
    """Whether choices and `${meta.NAME}` in it are expanded."""


class NamedWeights(FrozenModel):
    """Weights that a row names: their name in the profile's folder, and the file's digest, which is
    the reader's.
    """

    name: str = Field(pattern=FILE_NAME)
    digest: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return cls._written(value) if isinstance(value, str) else value

    @classmethod
    def _written(cls, value: str) -> dict[str, str]:
        return {"name": value.strip()}


class Lora(NamedWeights):
    """A LoRA of a row with its weight, written `NAME:WEIGHT`; without a number the weight is 1."""

    weight: float = Field(default=1.0, ge=-4, le=4)

    @classmethod
    def _written(cls, value: str) -> dict[str, str]:
        name, colon, weight = value.rpartition(":")
        return {"name": name.strip(), "weight": weight} if colon else super()._written(value)


class TextualInversion(NamedWeights):
    """An embedding of a row, which its name in a text stands for."""

    @property
    def pattern(self) -> re.Pattern[str]:
        """The name in a text: in any case, and not as a part of a word."""
        return re.compile(rf"(?<!\w){re.escape(self.name)}(?!\w)", re.IGNORECASE)


NAMED_WEIGHTS: dict[str, type[NamedWeights]] = {"loras": Lora, "embeddings": TextualInversion}
"""The columns of a row that name weights."""


class InputImage(FrozenModel):
    """An image of a row: its path or address there, its size in pixels, and the sha256 of size and
    pixels, which names its copy in the store, `inputs/<sha256>.png`.
    """

    path: str
    sha256: Digest
    width: int
    height: int


@dataclass(frozen=True)
class LoadedImage:
    """An input image in the size of its job; equal where the stored file is."""

    sha256: str
    pixels: ImageArray = field(compare=False, repr=False)


@dataclass(frozen=True)
class Control:
    """A row's ControlNet, by its name in the profile, with the image that it reads.

    Its residuals are weighted by `scale` in the steps between the fractions `first` and `until`.
    """

    name: str
    image: LoadedImage
    scale: float = 1.0
    first: float = 0.0
    until: float = 1.0

    @property
    def partial(self) -> bool:
        """True where it leaves some steps out."""
        return (self.first, self.until) != (0, 1)

    def active(self, step: int, steps: int) -> bool:
        """True in the steps, numbered from 0, that it takes part in."""
        return self.scale > 0 and lies_between(step, steps, self.first, self.until)


def first_step(steps: int, strength: float) -> int:
    """The first step that is taken from an image on: all but the whole steps within `strength`."""
    return steps - int(steps * strength)


def lies_between(step: int, steps: int, first: float, until: float) -> bool:
    """True for a step, numbered from 0, that begins and ends between two fractions of the steps."""
    return first <= step / steps and (step + 1) / steps <= until


class Job(FrozenModel):
    """A validated row, with every default filled in.

    `id` is a hash of all fields but `row`, `priority` and the name of the `model`, and of the
    profile with that renderer: equal work has an equal id in any file and at any line.

    A field that is `Settable` is declared here alone, with its bounds and its description: readers,
    defaults, options and their help are derived from it (`pipeline/options.py`).
    """

    id: Id
    row: int = Field(ge=1, description="line in the job file; the header is line 1 of a CSV")
    keywords: Annotated[
        str,
        Field(description="the subject of the image"),
        Settable(elsewhere=("prompt", "positive_prompt"), template=True),
    ]
    name: Annotated[str, Field(description="your own name for the row"), Settable(column="id")] = ""
    style: Annotated[str, Field(description="added to the prompt"), Settable(template=True)] = ""
    negative: Annotated[
        str,
        Field(max_length=2048, description="negative prompt: what the image must not show"),
        Settable(("row", "profile"), "", elsewhere=("negative_prompt",), template=True),
    ] = ""
    candidates: Annotated[
        int,
        Field(ge=1, le=64, description="images rendered at most"),
        Settable(("row", "profile", "run"), 4),
    ]
    threshold: Annotated[
        float,
        Field(ge=0, le=1, description="calibrated score that the winner must reach"),
        Settable(("row", "profile", "run"), 0.5),
    ]
    width: Annotated[
        int,
        Field(ge=16, le=4096, multiple_of=8, description="pixels"),
        Settable(("row", "profile")),
    ]
    height: Annotated[
        int,
        Field(ge=16, le=4096, multiple_of=8, description="pixels"),
        Settable(("row", "profile")),
    ]
    steps: Annotated[
        int,
        Field(ge=1, le=500, description="denoising steps"),
        Settable(("row", "profile"), elsewhere=("sampling_steps", "num_inference_steps")),
    ]
    guidance: Annotated[
        float,
        Field(ge=0, le=50, description="scale of classifier-free guidance"),
        Settable(("row", "profile"), elsewhere=("cfg", "cfg_scale", "guidance_scale")),
    ]
    seed: Annotated[
        int,
        Field(ge=0, lt=SEED_SPACE, description="the first candidate's seed"),
        Settable(("row", "profile"), None),
    ]
    collection: Annotated[
        str,
        Field(pattern=PLAIN_NAME, description="collection of the knowledge base to search"),
        Settable(("row", "profile", "run"), ""),
    ] = ""
    passages: Annotated[
        int,
        Field(ge=0, le=50, description="passages to retrieve"),
        Settable(("row", "profile"), 4),
    ]
    references: Annotated[
        int, Field(ge=0, le=8, description="images to retrieve"), Settable(("row", "profile"), 0)
    ] = 0
    reference_scale: Annotated[
        float,
        Field(ge=0, le=1, description="weight of retrieved images in the render"),
        Settable(("row", "profile"), 0.6),
    ] = 0.0
    model: Annotated[
        str,
        Field(pattern=PLAIN_NAME, description="renderer of the profile to render with"),
        Settable(("row", "profile", "run"), ""),
    ] = ""
    loras: Annotated[
        tuple[Lora, ...],
        Field(max_length=4, description="LoRAs to render with, as `NAME:WEIGHT`"),
        Settable(("row", "profile"), ()),
    ] = ()
    reference_images: Annotated[
        tuple[InputImage, ...],
        Field(max_length=8, description="images that steer the render, files' paths"),
        Settable(),
    ] = ()
    image: Annotated[
        InputImage | None, Field(description="image to begin from, a file's path"), Settable()
    ] = None
    strength: Annotated[
        float,
        Field(gt=0, le=1, description="part of the steps that are taken from `image` on"),
        Settable(("row", "profile"), 0.75),
    ] = 0.75
    mask: Annotated[
        InputImage | None,
        Field(description="image that is white where `image` is painted anew"),
        Settable(),
    ] = None
    embeddings: Annotated[
        tuple[TextualInversion, ...],
        Field(
            max_length=MOST_EMBEDDINGS,
            description="textual inversions whose names the texts may hold",
        ),
        Settable(("row", "profile"), ()),
    ] = ()
    control: Annotated[
        str,
        Field(pattern=PLAIN_NAME, description="ControlNet of the profile to render with"),
        Settable(),
    ] = ""
    control_image: Annotated[
        InputImage | None,
        Field(description="image that the ControlNet reads, a file's path"),
        Settable(),
    ] = None
    control_scale: Annotated[
        float,
        Field(ge=0, le=2, description="weight of the ControlNet"),
        Settable(
            ("row", "profile"),
            1.0,
            elsewhere=("controlnet_conditioning_scale", "control_weight"),
        ),
    ] = 1.0
    control_from: Annotated[
        float,
        Field(ge=0, le=1, description="where the ControlNet begins, as a fraction of the steps"),
        Settable(("row", "profile"), 0.0, elsewhere=("control_guidance_start",)),
    ] = 0.0
    control_until: Annotated[
        float,
        Field(ge=0, le=1, description="where it ends, as a fraction of the steps"),
        Settable(("row", "profile"), 1.0, elsewhere=("control_guidance_end",)),
    ] = 1.0
    tags: Annotated[
        tuple[str, ...],
        Field(description="tags that a source must have, all of them"),
        Settable(),
    ] = ()
    licenses: Annotated[
        tuple[str, ...], Field(description="licences that a source may have"), Settable()
    ] = ()
    needs_context: Annotated[
        bool,
        Field(description="whether the row waits while the knowledge base does not answer"),
        Settable(),
    ] = True
    mode: Annotated[
        TextMode, Field(description="source of the text"), Settable(("row", "profile"), "generated")
    ]
    contest: Annotated[
        ContestMode,
        Field(description="rule by which candidates compete"),
        Settable(("row", "profile"), "best_of"),
    ]
    wave: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="candidates that `first_above` and `race_above` start together",
        ),
        Settable(("row", "profile"), 2),
    ]
    rungs: Annotated[
        tuple[Rung, ...],
        Field(description="where the race modes drop candidates"),
        Settable(
            ("profile",), (Rung(at=0.4, keep=0.5), Rung(at=0.6, keep=0.5), Rung(at=0.8, keep=0.5))
        ),
    ] = ()
    rounds: Annotated[
        int,
        Field(
            ge=1,
            le=2,
            description="`2`: where no candidate passes, images of what is missing in the best one "
            "are retrieved and steer as many candidates again",
        ),
        Settable(("row", "profile"), 1),
    ] = 1
    priority: Annotated[
        int, Field(ge=0, le=9, description="place in the queue; 0 goes first"), Settable()
    ] = 5
    meta: dict[str, str] = Field(default_factory=dict)

    @property
    def first_step(self) -> int:
        """The first denoising step that is taken; 0 unless the job begins from an image."""
        return first_step(self.steps, self.strength) if self.image else 0

    @property
    def inputs(self) -> tuple[InputImage, ...]:
        """The images that its row names."""
        named = (self.image, self.mask, self.control_image)
        return (*(image for image in named if image), *self.reference_images)

    def candidate_seed(self, index: int) -> int:
        """The seed of candidate `index`: the job's seed plus the index, as in A1111."""
        return (self.seed + index) % SEED_SPACE

    @property
    def batch_key(self) -> BatchKey:
        """The batch key of the job's render requests, as far as it is known before retrieval."""
        references = self.references + len(self.reference_images)
        return self.model, self.width, self.height, references if self.reference_scale else 0


class BadRow(FrozenModel):
    """A row that cannot become a job. `id` is a hash of the raw row and its line."""

    id: Id
    row: int
    column: str
    reason: str
    keywords: str = Field(default="", description="as far as they could be read, shortened")


class Passage(FrozenModel):
    """A retrieved text. `score` ranks it, comparable within one search."""

    id: str
    text: str
    title: str = ""
    source: str = ""
    license: str = ""
    tags: tuple[str, ...] = ()
    score: float
    relevance: float | None = Field(
        default=None, description="0..1, comparable everywhere; none where there is no floor"
    )


class Reference(Passage):
    """A retrieved image; its `text` is the knowledge base's description of it, and may be empty.

    A record keeps `image`, from which the embedding can be computed again.
    """

    image: str = Field(
        pattern=r"^knowledge/images/[0-9a-f]{64}\.png$",
        description="the store's key of it, under its sha256",
    )
    scale: float = Field(description="of the image in the render; 0: not used there")
    embedding: Embedding = Field(default=(), exclude=True, repr=False)


class Context(FrozenModel):
    """The passages and images retrieved for a job, best first."""

    passages: tuple[Passage, ...] = ()
    references: tuple[Reference, ...] = ()
    unavailable: str = Field(default="", description="why nothing could be retrieved")

    @property
    def sources(self) -> tuple[Passage, ...]:
        """The passages, then the images."""
        return (*self.passages, *self.references)

    @property
    def texts(self) -> tuple[Passage, ...]:
        """The passages and the descriptions of the images, each once."""
        said = {each.id: each for each in (*self.references, *self.passages) if each.text}
        order = dict.fromkeys(each.id for each in self.sources)
        return tuple(said[key] for key in order if key in said)

    def joined(self, references: tuple[Reference, ...]) -> "Context":
        """A copy with more images behind its own."""
        return self.model_copy(update={"references": (*self.references, *references)})


class Brief(FrozenModel):
    """The text to illustrate, and the image prompt written from it."""

    text: str
    prompt: str
    negative: str = ""
    sources: tuple[str, ...] = Field(
        default=(), description="ids of the retrieved texts that it was written with"
    )


class Score(FrozenModel):
    """A judge's score of one image. An invalid image has `raw` and `calibrated` 0."""

    raw: float = Field(description="cosine of image and text, -1..1")
    calibrated: float = Field(ge=0, le=1, description="chance that the image shows the text")
    valid: bool = True
    reason: str = ""


class RenderRequest(FrozenModel):
    """One call of a renderer: the same prompt once for each seed. `model` is the renderer's name
    in the profile.

    `references` are embeddings of images that steer the render, weighted by `reference_scale`. It
    begins from `image`, where there is one, for the part `strength` of the steps; with a `mask`,
    what is black in it stays as it is. The `control` is a ControlNet with its image.
    """

    prompt: str
    negative: str
    width: int
    height: int
    steps: int
    guidance: float
    seeds: tuple[int, ...]
    references: tuple[Embedding, ...] = ()
    reference_scale: float = 0.0
    loras: tuple[Lora, ...] = ()
    model: str = ""
    image: InstanceOf[LoadedImage] | None = None
    strength: float = 1.0
    mask: InstanceOf[LoadedImage] | None = None
    embeddings: tuple[TextualInversion, ...] = Field(default=(), max_length=MOST_EMBEDDINGS)
    control: InstanceOf[Control] | None = None

    @property
    def first_step(self) -> int:
        """The first denoising step that is taken."""
        return first_step(self.steps, self.strength) if self.image else 0

    @property
    def batch_key(self) -> BatchKey:
        """Equal for all requests that may share a batch."""
        return self.model, self.width, self.height, len(self.references)


@dataclass(frozen=True)
class Candidate:
    """One image of a job with its score, or neither where it was dropped before its last step.
    `previews` are the judge's scores at the job's rungs.
    """

    index: int
    seed: int
    image: ImageArray | None
    score: Score | None
    previews: tuple[Score, ...] = ()


canonical_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode
"""JSON that is equal for equal values."""


def digest_of(value: Any) -> str:
    """A 24-digit hex digest of anything JSON can hold, equal for equal values."""
    return digest_of_json(canonical_json(value))


def digest_of_json(document: str) -> str:
    """The digest of a value from its canonical JSON."""
    return hashlib.sha256(document.encode()).hexdigest()[:24]
