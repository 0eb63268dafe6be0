"""The sections of a profile but for renderers and guards: retrieval, writer, judge and defaults."""

from typing import Annotated, Literal, Self

from pydantic import Field

from pipeline.job import Against, Check, FrozenModel
from pipeline.options import settings_by
from pipeline.profile.base import Dtype, PlainName, Section

FLOOR = 0.53
"""Relevance below which texts are about something else (`python -m benchmarks.retrieval`)."""

Chance = Annotated[float, Field(ge=0, le=1)]
Tool = Literal["langchain", "llamaindex", "haystack"]


class CollectionProfile(FrozenModel):
    """A collection that another tool wrote, and how it is searched."""

    written_by: Tool
    embedding: str = Field(
        default="", description="what made its vectors, as in `retrieval`; empty: the profile's"
    )
    vector: str = Field(default="", description="name of the dense vector; empty: the tool's own")


class RetrievalProfile(Section):
    """Retrieval of any kind."""

    kind: str
    allowed: tuple[str, ...] = Field(
        default=(), description="the collections that jobs may ask; empty: any"
    )

    def models(self) -> dict[str, str]:
        """Role to reference of each model that it runs in this process."""
        return {}

    def allows(self, collection: str) -> bool:
        """True where jobs may search the collection."""
        return not self.allowed or collection in self.allowed


class QdrantProfile(RetrievalProfile):
    """Retrieval from Qdrant: the embeddings, and how texts and images are ranked."""

    kind: Literal["qdrant"] = "qdrant"
    embedding: str = Field(
        default="hashed", description="dense embedding: `hashed` (no model) or a model reference"
    )
    dense: float = Field(
        default=0.6, ge=0, le=1, description="the share of dense vectors; the rest is BM25's"
    )
    floor: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="relevance that a source's text must reach; 0: none; None: FLOOR with "
        "`hashed`, 0 with a text encoder and in collections of other tools",
    )
    image_encoder: str = Field(
        default="", description="model reference of the CLIP that embeds images; empty: none"
    )
    image_norm: float = Field(
        default=0.0, ge=0, description="length that embeddings of images are given; 0: their own"
    )
    alike: float = Field(
        default=0.9, gt=0, le=1, description="sources that are more alike are taken once"
    )
    collections: dict[str, CollectionProfile] = Field(
        default={}, description="those that other tools wrote, by name"
    )

    def floor_of(self, collection: str) -> float:
        """The floor for a collection's texts.

        A text encoder, which other tools use too, also finds what shares no word with the keywords,
        and no floor tells that from what is about something else.
        """
        if self.floor is not None:
            return self.floor
        by_words = self.embedding == "hashed" and collection not in self.collections
        return FLOOR if by_words else 0.0

    def models(self) -> dict[str, str]:
        """Embedders; a role names its external collection after a colon."""
        named: dict[str, str] = {}
        if self.embedding != "hashed":
            named["embedding"] = self.embedding
        if self.image_encoder:
            named["image_encoder"] = self.image_encoder
        for collection, theirs in self.collections.items():
            if theirs.embedding not in ("", "hashed"):
                named[f"embedding:{collection}"] = theirs.embedding
        return named


class LocalWriterProfile(FrozenModel):
    """A causal language model in this process, as the writer of the text and the prompt."""

    kind: Literal["local"] = "local"
    model: str = Field(default="", description="model reference")
    dtype: Dtype = "float32"
    batch: int = Field(default=16, ge=1, description="jobs in one call")
    max_tokens: int = Field(default=256, ge=8)
    temperature: float = Field(default=0.0, ge=0, le=2)
    checks: int = Field(default=0, ge=0, le=12, description="most checks that it writes of a brief")


class EndpointWriterProfile(FrozenModel):
    """An OpenAI-compatible endpoint as the writer."""

    kind: Literal["endpoint"] = "endpoint"
    model: str = Field(default="", description="the endpoint's name of the model")
    max_tokens: int = Field(default=256, ge=8)
    temperature: float = Field(default=0.0, ge=0, le=2)
    checks: int = Field(default=0, ge=0, le=12, description="most checks that it writes of a brief")
    timeout: float = Field(default=60.0, gt=0, description="seconds for one call")


class TemplateWriterProfile(FrozenModel):
    """Two templates in place of a writer's model."""

    kind: Literal["template"] = "template"
    text_template: str = "{keywords}. {passages}"
    prompt_template: str = "{keywords} {style}"
    questions: tuple[Check, ...] = Field(
        default=(), description="templates of checks, which a right image answers with yes"
    )


class JudgeProfile(FrozenModel):
    """A judge of any kind: the text that it compares images with, and its share of the score."""

    kind: str
    name: PlainName = Field(
        default_factory=lambda known: known["kind"], description="of its part in the records"
    )
    against: Against = "prompt"
    weight: float | None = Field(
        default=None, ge=0, description="of its log-odds; None: 1 / the number of judges"
    )
    finalists: int | None = Field(
        default=None, ge=1, description="images of a wave that it sees, the best; None: all"
    )

    def models(self) -> dict[str, str]:
        """Role to reference of each model that it runs in this process."""
        return {}

    def beside(self, retrieval: RetrievalProfile) -> Self:
        """The table with what it takes over of the retrieval's section. Raises ValueError where
        there is no such thing.
        """
        del retrieval
        return self


class ClipJudgeProfile(JudgeProfile):
    """A CLIP or SigLIP as the judge, and the calibration of its cosines."""

    kind: Literal["clip"] = "clip"
    model: str = Field(description="model reference: OpenCLIP, or CLIP or SigLIP of transformers")
    dtype: Dtype = "float32"
    batch: int = Field(default=32, ge=1, description="images in one call")
    slope: float | None = Field(default=None, description="None: the model's calibration.json")
    offset: float | None = None

    def models(self) -> dict[str, str]:
        """The one model."""
        return {"judge": self.model}


class AskingJudgeProfile(JudgeProfile):
    """A judge of a kind that asks questions about the image: the brief's checks, if it has any."""

    phrases: bool = Field(
        default=False, description="asks about each phrase too, of a brief without checks"
    )
    floor: float = Field(
        default=0.0, ge=0, le=1, description="chance below which one answer decides alone"
    )


class QuestionsJudgeProfile(AskingJudgeProfile):
    """A vision-language model as the judge, which answers questions about the image."""

    kind: Literal["questions"] = "questions"
    model: str = Field(description="model reference of transformers' AutoModelForImageTextToText")
    dtype: Dtype = "float32"
    batch: int = Field(default=32, ge=1, description="questions in one call")

    def models(self) -> dict[str, str]:
        """The one model."""
        return {"vision_language": self.model}


class PanelProfile(FrozenModel):
    """The combination of the judges' chances."""

    offset: float = Field(default=0.0, description="added to their weighted log-odds")
    band: tuple[Chance, Chance] | None = Field(
        default=None, description="of the winners' median score, as calibrated; None: any"
    )


class JobDefaults(settings_by("profile", defaults=True)):  # type: ignore[misc]  # a computed base
    """Values for the columns that a row leaves empty."""


WriterProfile = Annotated[
    LocalWriterProfile | EndpointWriterProfile | TemplateWriterProfile, Field(discriminator="kind")
]
