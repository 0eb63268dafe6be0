"""Profiles: everything besides the row itself that decides a result, read from TOML.

A profile travels in the run's spec and is part of every job's identity.
"""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from pipeline.errors import ConfigError
from pipeline.job import SEED_SPACE, ContestMode, FrozenModel, Rung, TextMode, digest_of

PROFILES = Path(__file__).parent / "profiles"

Dtype = Literal["float32", "bfloat16", "float16"]
Tool = Literal["langchain", "llamaindex", "haystack"]


class CollectionProfile(FrozenModel):
    """A collection that another tool wrote, and how it is searched."""

    written_by: Tool
    embedding: str = Field(
        default="", description="what made its vectors, as in `retrieval`; empty: the profile's"
    )
    vector: str = Field(default="", description="name of the dense vector; empty: the tool's own")


class RetrievalProfile(FrozenModel):
    """Retrieval: the embeddings, and how texts and images are ranked."""

    embedding: str = Field(
        default="hashed", description="dense embedding: `hashed` (no model) or a model reference"
    )
    dense: float = Field(
        default=0.6, ge=0, le=1, description="the share of dense vectors; the rest is BM25's"
    )
    floor: float = Field(default=0.0, ge=0, le=1, description="passages below are dropped")
    image_encoder: str = Field(
        default="", description="model reference of the OpenCLIP that embeds images; empty: none"
    )
    image_norm: float = Field(
        default=0.0, ge=0, description="length that embeddings of images are given; 0: their own"
    )
    alike: float = Field(
        default=0.9, gt=0, le=1, description="sources that are more alike are taken once"
    )
    allowed: tuple[str, ...] = Field(
        default=(), description="the collections that jobs may ask; empty: any"
    )
    collections: dict[str, CollectionProfile] = Field(
        default={}, description="those that other tools wrote, by name"
    )

    def allows(self, collection: str) -> bool:
        """True where jobs may search the collection."""
        return not self.allowed or collection in self.allowed

    def __hash__(self) -> int:
        # a dict has none, and retrievers are cached by their profile
        return hash(digest_of(self.model_dump(mode="json")))


class WriterProfile(FrozenModel):
    """The writer of the text and the prompt."""

    kind: Literal["local", "endpoint", "template"]
    model: str = Field(default="", description="model reference, or the endpoint's model name")
    dtype: Dtype = "float32"
    batch: int = Field(default=16, ge=1, description="jobs in one call")
    max_tokens: int = Field(default=256, ge=8)
    temperature: float = Field(default=0.0, ge=0, le=2)
    timeout: float = Field(default=60.0, gt=0, description="seconds for one endpoint call")
    text_template: str = "{keywords}. {passages}"
    prompt_template: str = "{keywords} {style}"


class RendererProfile(FrozenModel):
    """The renderer, its models and its batches."""

    kind: Literal["diffusers", "a1111"]
    model: str = Field(default="", description="model reference; for a1111 a checkpoint's name")
    unet: str = Field(default="", description="model reference of a UNet to use instead")
    previews: str = Field(
        default="", description="model reference of a small decoder (TAESD) for previews, if any"
    )
    image_adapter: str = Field(
        default="", description="model reference of an IP-Adapter: a folder with one file"
    )
    variant: str = Field(default="", description="file variant of the weights, such as fp16")
    scheduler: str = Field(
        default="", description="a diffusers scheduler class; empty: the model's"
    )
    dtype: Dtype = "float32"
    batch: int = Field(default=8, ge=1, description="images in one batch")
    channels_last: bool = Field(
        default=False, description="memory layout that GPUs convolve faster"
    )
    compile: bool = Field(default=False, description="the denoiser's repeated blocks")
    guided_until: float = Field(
        default=1.0, ge=0, le=1, description="the part of the steps that is guided, from the first"
    )
    timeout: float = Field(default=300.0, gt=0, description="seconds for one endpoint call")


class JudgeProfile(FrozenModel):
    """The judge, the text it scores against, and the calibration of its cosines."""

    model: str = Field(description="model reference: an OpenCLIP folder or hub id")
    against: Literal["prompt", "text", "keywords"] = "prompt"
    dtype: Dtype = "float32"
    batch: int = Field(default=32, ge=1, description="images in one call")
    slope: float | None = Field(default=None, description="None: the model's calibration.json")
    offset: float | None = None


class GuardProfile(FrozenModel):
    """Terms that neither keywords nor prompts may hold."""

    blocked_terms: tuple[str, ...] = ()


class JobDefaults(FrozenModel):
    """Values for the columns that a row leaves empty."""

    candidates: int = 4
    threshold: float = 0.5
    width: int
    height: int
    steps: int
    guidance: float
    seed: int | None = Field(default=None, ge=0, lt=SEED_SPACE, description="None: from the row")
    collection: str = ""
    negative: str = Field(default="", max_length=2048, description="as long as a row's own may be")
    passages: int = 4
    references: int = 0
    reference_scale: float = 0.6
    mode: TextMode = "generated"
    contest: ContestMode = "best_of"
    wave: int = 2
    rounds: int = 1
    rungs: tuple[Rung, ...] = (
        Rung(at=0.4, keep=0.5),
        Rung(at=0.6, keep=0.5),
        Rung(at=0.8, keep=0.5),
    )


class Profile(FrozenModel):
    """Everything besides the row itself that decides a result."""

    name: str
    retrieval: RetrievalProfile = RetrievalProfile()
    writer: WriterProfile
    renderer: RendererProfile
    judge: JudgeProfile
    guard: GuardProfile = GuardProfile()
    defaults: JobDefaults

    @classmethod
    def load(cls, name: str) -> Self:
        """Read a shipped profile by name, or any TOML file by path.

        `extends = "NAME"` begins from another profile. Raises ConfigError.
        """
        try:
            return cls.model_validate(_read_profile(name) | {"name": Path(name).stem})
        except ValidationError as error:
            raise ConfigError(f"profile {name!r}: {first_problem(error)}") from error


def _read_profile(name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.toml")))
        raise ConfigError(f"no profile {name!r}; there are {known}, or give a .toml file's path")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"profile {path}: {error}") from error
    base = tables.pop("extends", None)
    return _merge(_read_profile(base), tables) if base else tables


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def first_problem(error: ValidationError) -> str:
    """The first of a validation's errors in one line, after the dotted name of its field."""
    problem = error.errors()[0]
    where, what = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
