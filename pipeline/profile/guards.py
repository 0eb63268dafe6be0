"""The sections of guards: what is refused, in which places, and what is then done."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from pipeline.job import FrozenModel
from pipeline.profile.base import Dtype, PlainName

TextPlace = Literal["keywords", "passages", "prompt"]
ImagePlace = Literal["inputs", "references", "output"]
Phrase = Annotated[str, Field(min_length=1, max_length=300)]


class GuardSection(FrozenModel):
    """A guard of any kind. `drop` leaves out a passage, a reference or a candidate, and blocks the
    job where there is nothing to leave out; `block` always blocks it. `rewrite`, of guards that
    read prompts, has the writer write a refused one anew, once; elsewhere it is `drop`.
    """

    kind: str
    name: PlainName = Field(
        default_factory=lambda known: known["kind"], description="named in reasons"
    )
    action: Literal["drop", "block", "rewrite"] = "drop"

    def models(self) -> dict[str, str]:
        """Role to reference of each model that it runs in this process."""
        return {}


class TermsGuardProfile(GuardSection):
    """Terms that texts must not hold."""

    kind: Literal["terms"] = "terms"
    terms: Annotated[tuple[str, ...], Field(min_length=1)]
    places: tuple[TextPlace, ...] = Field(default=(), description="empty: all three")

    @property
    def in_places(self) -> tuple[str, ...]:
        """The places whose texts it reads."""
        return self.places or get_args(TextPlace)


class ImageGuardSection(GuardSection):
    """A guard of images by a model's chance that they show something."""

    action: Literal["drop", "block"] = "drop"
    places: tuple[ImagePlace, ...] = Field(default=(), description="empty: all three")
    threshold: float = Field(default=0.5, gt=0, le=1, description="chance from which it refuses")
    batch: int = Field(default=32, ge=1, description="images in one call")

    @property
    def in_places(self) -> tuple[str, ...]:
        """The places whose images it sees."""
        return self.places or get_args(ImagePlace)


class ConceptGuardProfile(ImageGuardSection):
    """A concept that images must not show, told by a CLIP that was not trained for it."""

    kind: Literal["concept"] = "concept"
    concept: Phrase = Field(description="a caption of what is refused")
    unlike: tuple[Phrase, ...] = Field(
        default=(), description="captions of what is allowed, that the concept is weighed against"
    )
    model: str = Field(default="", description="a CLIP's reference; empty: the judge's")
    dtype: Dtype | None = Field(
        default=None, description="None: that of the judge whose CLIP it is"
    )
    slope: float | None = Field(default=None, description="None: the model's calibration")
    offset: float | None = None

    def models(self) -> dict[str, str]:
        """Its own CLIP, if it has one."""
        return {f"concept:{self.name}": self.model} if self.model else {}


class ClassifierGuardProfile(ImageGuardSection):
    """Labels of an image classifier that images must not have."""

    kind: Literal["classifier"] = "classifier"
    model: str = Field(min_length=1, description="model reference, in the format of transformers")
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    dtype: Dtype = "float32"

    def models(self) -> dict[str, str]:
        """The classifier."""
        return {f"guard:{self.name}": self.model}


class EndpointGuardProfile(GuardSection):
    """Categories that texts and images must not have, told by an OpenAI-compatible server."""

    kind: Literal["endpoint"] = "endpoint"
    model: str = Field(default="", description="the server's name of it; empty: its own choice")
    categories: tuple[str, ...] = Field(default=(), description="empty: all that it answers")
    places: tuple[TextPlace | ImagePlace, ...] = Field(default=(), description="empty: all six")
    threshold: float = Field(default=0.5, gt=0, le=1, description="chance from which it refuses")
    timeout: float = Field(default=30.0, gt=0, description="seconds for one call")
    at_once: int = Field(default=8, ge=1, le=64, description="images of one worker in flight")

    @property
    def in_places(self) -> tuple[str, ...]:
        """The places whose texts it reads and whose images it sees."""
        return self.places or (*get_args(TextPlace), *get_args(ImagePlace))


GuardProfile = (
    TermsGuardProfile | ConceptGuardProfile | ClassifierGuardProfile | EndpointGuardProfile
)
