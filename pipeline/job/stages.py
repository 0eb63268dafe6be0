"""Values that the stages of a job hand on: context, brief, render request, scores, candidates."""

from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import Field, InstanceOf

from pipeline.job.row import MOST_EMBEDDINGS, Lora, TextualInversion, first_step, lies_between
from pipeline.job.values import BatchKey, Embedding, FrozenModel, ImageArray

Against = Literal["prompt", "text", "keywords"]
"""The text of a job that a judge compares images with."""

MASKED = 0.5
"""Luminance from which on a mask's pixel is painted anew."""


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


CheckKind = Literal["object", "attribute", "count", "relation", "text"]


class Check(FrozenModel):
    """A question about an image of a brief; the right answer is always yes."""

    question: str = Field(min_length=1)
    kind: CheckKind = "object"


class Brief(FrozenModel):
    """The text to illustrate, and the image prompt written from it."""

    text: str
    prompt: str
    negative: str = ""
    sources: tuple[str, ...] = Field(
        default=(), description="ids of the retrieved texts that it was written with"
    )
    checks: tuple[Check, ...] = Field(
        default=(), description="questions that a right image answers with yes"
    )


@dataclass(frozen=True)
class Rejected:
    """An earlier prompt of a job, and the questions that none of its images answered with yes; or
    the rule of a guard that it broke, and then text and checks are to be written anew as well.
    """

    prompt: str
    questions: tuple[str, ...] = ()
    rule: str = ""


class TokenCount(FrozenModel):
    """Tokens of a text, and how many of them a text encoder of the renderer read."""

    text: Literal["prompt", "negative prompt"] = Field(
        description="of prompts that AND joins there is one for each, in order"
    )
    encoder: str = Field(description="the encoder's name in the model")
    tokens: int = Field(ge=0, description="without those for the begin and the end of a text")
    read: int = Field(ge=0, description="the others were left out")
    chunks: int = Field(default=1, ge=1, description="texts that the encoder read one by one")


@dataclass(frozen=True)
class JudgeRequest:
    """A job's side of what a judge compares: its three texts as plain words, the brief's checks,
    and the embeddings of the images that the job named and retrieved. With `previews` its images
    are unfinished; `whole` is the request of which it says a part.
    """

    prompt: str
    text: str
    keywords: str
    checks: tuple[Check, ...] = ()
    references: tuple[Embedding, ...] = field(default=(), repr=False)
    previews: bool = False
    whole: "JudgeRequest | None" = field(default=None, repr=False)

    def words(self, against: Against) -> str:
        """The text of this name."""
        return {"prompt": self.prompt, "text": self.text, "keywords": self.keywords}[against]

    def saying(self, text: str) -> "JudgeRequest":
        """A copy with one text in place of all three, and without checks, which are of others."""
        whole = self.whole or self
        return replace(self, prompt=text, text=text, keywords=text, checks=(), whole=whole)


class ScorePart(FrozenModel):
    """One judge's part of a score."""

    judge: str = Field(description="its name in the profile")
    raw: float = Field(description="in the judge's own unit: for `clip` the cosine, -1..1")
    calibrated: float = Field(ge=0, le=1, description="chance that the image is right")
    answers: tuple[float, ...] = Field(
        default=(),
        description="P(yes) for each of the brief's checks, in order, of a judge that asks them",
    )
    reply: str = Field(
        default="", description="the caption, or the text that it read, of a judge that replies"
    )


class Score(FrozenModel):
    """The score of one image, and each judge's part of it. An invalid image has `raw` and
    `calibrated` 0.
    """

    raw: float = Field(description="of one judge its own number; of several their log-odds")
    calibrated: float = Field(ge=0, le=1, description="chance that the image shows the text")
    valid: bool = True
    final: bool = Field(
        default=True, description="whether all judges saw it, finalists' judges too"
    )
    reason: str = ""
    blocked: bool = Field(default=False, description="a guard refuses the image, so it is invalid")
    parts: tuple[ScorePart, ...] = Field(default=(), description="in the profile's order")


class RenderRequest(FrozenModel):
    """One call of a renderer: the same prompt once for each seed. `model` is the renderer's name
    in the profile.

    `references` are embeddings of images that steer the render, weighted by `reference_scale`; the
    first `named` of them are the row's own, the others were retrieved. It begins from `image`,
    where there is one, for the part `strength` of the steps; with a `mask`, what is black in it
    stays as it is. The `control` is a ControlNet with its image.
    """

    prompt: str
    negative: str
    width: int
    height: int
    steps: int
    guidance: float
    seeds: tuple[int, ...]
    references: tuple[Embedding, ...] = ()
    named: int = 0
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
        retrieved = len(self.references) - self.named
        return self.model, self.width, self.height, self.named, retrieved


@dataclass(frozen=True)
class Candidate:
    """One image of a job with its score, or neither where it was dropped before its last step.
    `previews` are the judge's scores at the job's rungs, or the one of its draft.
    """

    index: int
    seed: int
    image: ImageArray | None
    score: Score | None
    previews: tuple[Score, ...] = ()
