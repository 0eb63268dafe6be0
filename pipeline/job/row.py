"""A row of a job file: its columns, each declared once, and what they may hold."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.job.values import FILE_NAME, PLAIN_NAME, BatchKey, Digest, FrozenModel, Id

SEED_SPACE = 2**64
MOST_EMBEDDINGS = 4

Setter = Literal["row", "profile", "run"]
TextMode = Literal["generated", "retrieved", "keywords"]
ContestMode = Literal["best_of", "first_above", "stop", "race", "race_above", "draft"]


class Rung(FrozenModel):
    """A point of a race: after the fraction `at` of the steps, the fraction `keep` of the rivals
    goes on.
    """

    at: float = Field(gt=0, lt=1)
    keep: float = Field(gt=0, lt=1, description="rounded up; at least one goes on")


class Prior(FrozenModel):
    """The scores to expect of a profile's images, as logits of calibrated scores: their `mean`, the
    variance `between` prompts, and the variance `within` a prompt, between its seeds.
    """

    mean: float = Field(ge=-20, le=20)
    between: float = Field(ge=0, le=1000)
    within: float = Field(ge=1e-6, le=1000)


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
    """An image to begin from or to refer to: its path or address in the row, or `candidate` and a
    number; its size in pixels; and the sha256 of size and pixels, which names its copy in the
    store, `inputs/<sha256>.png`.
    """

    path: str
    sha256: Digest
    width: int
    height: int


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
    prompt_words: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="length of the prompt that a writer is asked for, in words; `0`: any",
        ),
        Settable(("profile",), 0),
    ] = 0
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
            description="candidates that `first_above`, `stop` and `race_above` start together",
        ),
        Settable(("row", "profile"), 1),
    ]
    stop_below: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="chance of the next candidate to pass below which `stop` gives up",
        ),
        Settable(("row", "profile"), 0.02),
    ] = 0.02
    prior: Annotated[
        Prior | None,
        Field(description="scores that `stop` expects before it has seen any"),
        Settable(("profile",), None),
    ] = None
    rungs: Annotated[
        tuple[Rung, ...],
        Field(description="where the race modes drop candidates"),
        Settable(
            ("profile",), (Rung(at=0.4, keep=0.5), Rung(at=0.6, keep=0.5), Rung(at=0.8, keep=0.5))
        ),
    ] = ()
    draft_steps: Annotated[
        int,
        Field(
            ge=1,
            le=500,
            description="denoising steps after which the contest `draft` compares all candidates",
        ),
        Settable(("row", "profile"), 8),
    ] = 8
    survivors: Annotated[
        int,
        Field(ge=1, le=64, description="candidates that `draft` renders again, with all steps"),
        Settable(("row", "profile"), 2),
    ] = 2
    rounds: Annotated[
        int,
        Field(
            ge=1,
            le=3,
            description="most contests: where no candidate passes, the writer changes the prompt "
            "for what none shows, the best one is edited, or images of what is missing are "
            "retrieved, and as many candidates follow",
        ),
        Settable(("row", "profile"), 1),
    ] = 1
    edit_strength: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="part of the steps that a further round takes from the best candidate on, "
            "where that one lacks little; `0`: none is edited",
        ),
        Settable(("row", "profile"), 0.6),
    ] = 0.0
    priority: Annotated[
        int, Field(ge=0, le=9, description="place in the queue; 0 goes first"), Settable()
    ] = 5
    meta: dict[str, str] = Field(default_factory=dict)

    @property
    def first_step(self) -> int:
        """The first denoising step that is taken; 0 unless the job begins from an image."""
        return first_step(self.steps, self.strength) if self.image else 0

    @property
    def contest_steps(self) -> int:
        """Denoising steps of a contest's candidates, at most."""
        each = self.steps - self.first_step
        if self.contest != "draft":
            return self.candidates * each
        draft = self.model_copy(update={"steps": self.draft_steps})
        return self.candidates * (draft.steps - draft.first_step) + self.survivors * each

    @property
    def inputs(self) -> tuple[InputImage, ...]:
        """The images that its row names."""
        named = (self.image, self.mask, self.control_image)
        return (*(image for image in named if image), *self.reference_images)

    def editing(self, image: InputImage) -> "Job":
        """A copy that begins from an image at the strength of edits."""
        return self.model_copy(update={"image": image, "strength": self.edit_strength})

    def candidate_seed(self, index: int) -> int:
        """The seed of candidate `index`: the job's seed plus the index, as in A1111."""
        return (self.seed + index) % SEED_SPACE

    @property
    def batch_key(self) -> BatchKey:
        """The batch key of the job's render requests, as far as it is known before retrieval."""
        images = (len(self.reference_images), self.references) if self.reference_scale else (0, 0)
        return self.model, self.width, self.height, *images


class BadRow(FrozenModel):
    """A row that cannot become a job. `id` is a hash of the raw row and its line."""

    id: Id
    row: int
    column: str
    reason: str
    keywords: str = Field(default="", description="as far as they could be read, shortened")
