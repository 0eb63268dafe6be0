"""Profiles: everything besides the row itself that decides a result, read from TOML.

A profile travels in the run's spec and is part of every job's identity.
"""

import tomllib
from math import isfinite
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal, NamedTuple, Self, Union, get_args

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from pipeline.errors import ConfigError, RunError
from pipeline.job import PLAIN_NAME, FrozenModel, digest_of
from pipeline.options import message, settings_by
from pipeline.record import RunSpec

PROFILES = Path(__file__).parent / "profiles"

FLOOR = 0.53
"""Relevance below which texts are about something else (`python -m benchmarks.retrieval`)."""

Dtype = Literal["float32", "bfloat16", "float16"]
Tool = Literal["langchain", "llamaindex", "haystack"]
PlainName = Annotated[str, Field(min_length=1, pattern=PLAIN_NAME)]
Preprocessor = Literal["none", "canny", "invert", "luminance"]


def _scalar(value: object) -> object:
    if isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value)):
        return value
    raise ValueError("Input should be true or false, a finite number or a text")


Scalar = Annotated[bool | int | float | str, PlainValidator(_scalar)]


class Section(FrozenModel):
    """A section that holds tables, and is hashable all the same: what it chooses is cached."""

    def __hash__(self) -> int:
        return hash(digest_of(self.model_dump(mode="json")))


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


class EndpointWriterProfile(FrozenModel):
    """An OpenAI-compatible endpoint as the writer."""

    kind: Literal["endpoint"] = "endpoint"
    model: str = Field(default="", description="the endpoint's name of the model")
    max_tokens: int = Field(default=256, ge=8)
    temperature: float = Field(default=0.0, ge=0, le=2)
    timeout: float = Field(default=60.0, gt=0, description="seconds for one call")


class TemplateWriterProfile(FrozenModel):
    """Two templates in place of a writer's model."""

    kind: Literal["template"] = "template"
    text_template: str = "{keywords}. {passages}"
    prompt_template: str = "{keywords} {style}"


class ControlProfile(FrozenModel):
    """A ControlNet that rows may name, and how a row's image becomes the one that it reads."""

    model: str = Field(description="model reference of a ControlNet, or the server's name of it")
    preprocessor: Preprocessor = Field(
        default="none", description="what makes the control image of a row's image"
    )


Scale = Annotated[float, Field(ge=0, le=1)]
BlockScales = Scale | dict[str, Scale | list[Scale]]
"""For all blocks, or by block (`block_0`), there for all layers or for each of them."""


class UNetScales(FrozenModel):
    """Weights of an image adapter by the parts of the UNet."""

    down: BlockScales = 0.0
    mid: Scale = 0.0
    up: BlockScales = 0.0


class ImageAdapterProfile(FrozenModel):
    """One of several IP-Adapters of a renderer, and the images that it is given."""

    model: str = Field(description="model reference of an IP-Adapter: a folder with one file")
    images: Literal["all", "named", "retrieved"] = Field(
        default="all", description="which of a row's images it is given"
    )
    scale: Scale | UNetScales = Field(
        default=1.0, description="its own weight, times the row's; or by the UNet's parts"
    )

    def takes(self, source: Literal["named", "retrieved"]) -> bool:
        """True where it is given the images of this source."""
        return self.images in ("all", source)


class MemoryProfile(FrozenModel):
    """Ways to do with less of the device's memory."""

    weights: Literal["whole", "float8"] = Field(
        default="whole", description="storage of the denoiser's weights"
    )
    offload: Literal["none", "auto", "host"] = Field(
        default="none", description="layers to the host's memory while others calculate"
    )
    tiling: bool = Field(default=False, description="the VAE works in tiles")


class DiffusersProfile(Section):
    """A diffusion model on this device as the renderer, with its batches."""

    kind: Literal["diffusers"] = "diffusers"
    model: str = Field(default="", description="model reference")
    unet: str = Field(default="", description="model reference of a UNet to use instead")
    previews: str = Field(
        default="", description="model reference of a small decoder (TAESD) for previews, if any"
    )
    image_adapter: str | dict[PlainName, ImageAdapterProfile] = Field(
        default="", description="model reference of an IP-Adapter, or several by name"
    )
    loras: str = Field(default="", description="folder of LoRAs that rows may name")
    embeddings: str = Field(
        default="", description="folder of textual inversions that rows may name"
    )
    controls: dict[PlainName, ControlProfile] = Field(
        default={}, description="ControlNets that rows may name"
    )
    variant: str = Field(default="", description="file variant of the weights, such as fp16")
    scheduler: str = Field(
        default="", description="a diffusers scheduler class; empty: the model's"
    )
    scheduler_settings: dict[str, Scalar] = Field(
        default={}, description="values in place of the model's own, by the class's names"
    )
    dtype: Dtype = "float32"
    batch: int = Field(default=8, ge=1, description="images in one batch")
    channels_last: bool = Field(
        default=False, description="memory layout of the weights: channels last"
    )
    compile: bool = Field(default=False, description="the models' repeated blocks")
    memory: MemoryProfile = MemoryProfile()
    guided_from: float = Field(default=0.0, ge=0, le=1, description="where guidance begins")
    guided_until: float = Field(
        default=1.0, ge=0, le=1, description="where it ends, as a fraction of the steps"
    )
    predict_every: int = Field(
        default=1, ge=1, le=8, description="steps of which the model predicts in one"
    )
    composed: bool = Field(
        default=False, description="whether AND divides a prompt into parts predicted apart"
    )
    weighted: bool = Field(
        default=False, description="whether brackets weigh words of a prompt and BREAK divides it"
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.compile and (self.memory.offload == "host" or self.memory.weights != "whole"):
            raise ValueError("compile needs memory.weights `whole`, and no memory.offload `host`")
        if self.loras and self.memory.weights != "whole":
            # PEFT rounds what it loads as the weights are stored
            raise ValueError("loras need memory.weights `whole`; memory.offload saves memory too")
        return self

    @property
    def image_adapters(self) -> dict[str, ImageAdapterProfile]:
        """The IP-Adapters by role."""
        if isinstance(self.image_adapter, str):
            named = {"image_adapter": self.image_adapter} if self.image_adapter else {}
            return {role: ImageAdapterProfile(model=each) for role, each in named.items()}
        return {f"image_adapter:{name}": each for name, each in self.image_adapter.items()}

    def models(self) -> dict[str, str]:
        """Role to reference of each model that it runs in this process."""
        extras = {"unet": self.unet, "previews": self.previews}
        extras |= {role: each.model for role, each in self.image_adapters.items()}
        extras |= {f"control:{name}": each.model for name, each in self.controls.items()}
        return {"renderer": self.model} | {role: each for role, each in extras.items() if each}


class A1111Profile(Section):
    """An A1111-compatible server as the renderer."""

    kind: Literal["a1111"] = "a1111"
    model: str = Field(default="", description="a checkpoint's name; empty: the one it has loaded")
    controls: dict[PlainName, ControlProfile] = Field(
        default={}, description="ControlNets that rows may name, each with the server's name of it"
    )
    scheduler: str = Field(default="", description="a sampler's name; empty: the server's choice")
    batch: int = Field(default=8, ge=1, description="images in one call")
    timeout: float = Field(default=300.0, gt=0, description="seconds for one call")

    def models(self) -> dict[str, str]:
        """None in this process."""
        return {}


class JudgeProfile(FrozenModel):
    """A judge of any kind, and the text it scores against."""

    kind: str
    against: Literal["prompt", "text", "keywords"] = "prompt"

    def models(self) -> dict[str, str]:
        """Role to reference of each model that it runs in this process."""
        return {}


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


class GuardProfile(FrozenModel):
    """Terms that neither keywords nor prompts may hold."""

    blocked_terms: tuple[str, ...] = ()


class JobDefaults(settings_by("profile", defaults=True)):  # type: ignore[misc]  # a computed base
    """Values for the columns that a row leaves empty."""


# a computed base, as above
class RendererDefaults(settings_by("profile", without=["model"])):  # type: ignore[misc]
    """Values in place of the profile's defaults in rows of one renderer; None keeps those."""


class NamedDiffusersProfile(DiffusersProfile):
    """A diffusion model that rows may choose by name."""

    defaults: RendererDefaults = RendererDefaults()


class NamedA1111Profile(A1111Profile):
    """An A1111-compatible server that rows may choose by name."""

    defaults: RendererDefaults = RendererDefaults()


WriterProfile = Annotated[
    LocalWriterProfile | EndpointWriterProfile | TemplateWriterProfile, Field(discriminator="kind")
]
RendererProfile = Annotated[DiffusersProfile | A1111Profile, Field(discriminator="kind")]
NamedRenderer = NamedDiffusersProfile | NamedA1111Profile
_RENDERER: TypeAdapter[RendererProfile] = TypeAdapter(RendererProfile)


class Plug(NamedTuple):
    """A kind of a port's implementation, as `module:name` of two things that are imported when a
    profile chooses it: the class of its section, and what makes the implementation of one.
    """

    profile: str
    made_by: str


JUDGES: dict[str, Plug] = {
    "clip": Plug("pipeline.profile:ClipJudgeProfile", "pipeline.judging.clip:ClipJudge"),
}
"""By kind; each is made of the process's `Models` and its section. The first is the default."""

RETRIEVERS: dict[str, Plug] = {
    "qdrant": Plug("pipeline.profile:QdrantProfile", "pipeline.assemble:qdrant_retriever"),
}
"""By kind; each is made of the process's `Models`, a function that opens the knowledge base, and
its section. The first is the default.
"""

PLUGS = {"judge": JUDGES, "retrieval": RETRIEVERS}


def _of_its_kind(value: Any, info: ValidationInfo) -> Any:
    """A section as the class of its kind."""
    if not isinstance(value, dict):
        return value
    kinds = Profile.kinds(str(info.field_name))
    section = {"kind": next(iter(kinds))} | value
    union: Any = Union[tuple(kinds.values())]  # noqa: UP007 - of one or more
    if len(kinds) > 1:
        union = Annotated[union, Field(discriminator="kind")]
    return TypeAdapter(union).validate_python(section)


class Profile(FrozenModel):
    """Everything besides the row itself that decides a result.

    A section with a `kind` has the keys of that kind and no others. `renderers` are those that
    rows choose by their column `model`; without one they are rendered by `renderer`.
    """

    name: str
    retrieval: Annotated[SerializeAsAny[RetrievalProfile], BeforeValidator(_of_its_kind)] = (
        QdrantProfile()
    )
    writer: WriterProfile
    renderer: RendererProfile
    renderers: dict[PlainName, Annotated[NamedRenderer, Field(discriminator="kind")]] = Field(
        default={}
    )
    judge: Annotated[SerializeAsAny[JudgeProfile], BeforeValidator(_of_its_kind)]
    guard: GuardProfile = GuardProfile()
    defaults: JobDefaults

    @model_validator(mode="after")
    def _has_default(self) -> Self:
        try:
            self.of(self.defaults.model)
        except ConfigError as error:
            raise ValueError(f"defaults.model: {error.detail}") from error
        return self

    @model_validator(mode="after")
    def _every_server_has_its_checkpoint(self) -> Self:
        named = [self.renderer, *self.renderers.values()]
        served = [each for each in named if isinstance(each, A1111Profile)]
        if len(served) > 1 and not all(each.model for each in served):
            # a checkpoint that a row asks for stays loaded for the rows after it
            raise ValueError("of several renderers of kind 'a1111' each has to name its model")
        return self

    def of(self, model: str) -> Self:
        """The profile as it is for jobs of a `model`: its renderer and defaults are that one's, and
        there are no others. Raises ConfigError for an unknown name.
        """
        renderer, defaults = self.renderer, self.defaults
        if model:
            if (named := self.renderers.get(model)) is None:
                names = ", ".join(self.renderers) or "none"
                raise ConfigError(f"the profile has no renderer {model!r} (there are: {names})")
            renderer = _RENDERER.validate_python(named.model_dump(exclude={"defaults"}))
            own = {key: value for key, value in named.defaults if value is not None}
            defaults = defaults.model_copy(update=own)
        return self.model_copy(update={"renderer": renderer, "renderers": {}, "defaults": defaults})

    @classmethod
    def load(cls, name: str) -> Self:
        """Read a shipped profile by name, or any TOML file by path.

        `extends = "NAME"` begins from another profile. Raises ConfigError.
        """
        try:
            return cls.model_validate(_read_profile(name) | {"name": Path(name).stem})
        except ValidationError as error:
            raise ConfigError(f"profile {name!r}: {_problem(error)}") from error

    @classmethod
    def kinds(cls, section: str) -> dict[str, type[FrozenModel]]:
        """The models of a section, or of each of the `renderers`, by kind; by the empty name where
        it has no kinds.
        """
        if section in PLUGS:
            return {kind: resolve_name(plug.profile) for kind, plug in PLUGS[section].items()}
        named = section == "renderers"
        annotation = NamedRenderer if named else cls.model_fields[section].annotation
        models = get_args(annotation) or (annotation,)
        return {
            each.model_fields["kind"].default if "kind" in each.model_fields else "": each
            for each in models
            if isinstance(each, type) and issubclass(each, FrozenModel)
        }


def profile_of(spec: RunSpec) -> Profile:
    """The profile of a run. Raises RunError for one of another version of Pressrun."""
    try:
        return Profile.model_validate(spec.profile)
    except ValidationError as error:
        raise RunError(
            f"The profile of run {spec.run} is of another version of Pressrun"
            f" ({_problem(error)}). Go on with version {spec.version}, or submit the job file"
            " again: what is done under other settings is done anew."
        ) from error


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
    return _extended(_read_profile(base), tables) if base else tables


def _extended(base: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    """The tables over those of another profile. A section of another kind keeps of the base's keys
    those that its kind knows, and a renderer of another scheduler none of its settings.
    """
    kept = dict(base)
    for section in base.keys() & tables.keys() & Profile.model_fields.keys():
        old, new = base[section], tables[section]
        if section == "renderers" and isinstance(old, dict) and isinstance(new, dict):
            kept[section] = {n: _known(section, each, new.get(n)) for n, each in old.items()}
        else:
            kept[section] = _known(section, old, new)
    return _merge(kept, tables)


def _known(section: str, old: Any, new: Any) -> Any:
    """A section's keys without those that mean nothing beside the ones of the other table."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return old
    kind = Profile.kinds(section).get(str(new["kind"])) if "kind" in new else None
    kept = {k: v for k, v in old.items() if kind is None or k in kind.model_fields}
    if "scheduler" in new and new["scheduler"] != old.get("scheduler"):
        kept.pop("scheduler_settings", None)
    return kept


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _problem(error: ValidationError) -> str:
    """The first of a profile's errors in one line, after the dotted name of its key."""
    problem = error.errors()[0]
    place = [str(part) for part in problem["loc"]]
    kinds = Profile.kinds(place[0]) if place and place[0] in Profile.model_fields else {}
    depth = 2 if place[:1] == ["renderers"] else 1
    section, place = ".".join(place[:depth]), place[depth:]
    if problem["type"] == "union_tag_not_found":
        return f"{section}.kind: Field required"
    if problem["type"] == "union_tag_invalid":
        return f"{section}.kind: Input should be {' or '.join(map(repr, kinds))}"
    if len(kinds) < 2 or len(place) < 2:
        return first_problem(error)
    kind, *place = place  # pydantic names it before the key
    key = ".".join((section, *place))
    knowing = [repr(name) for name, model in kinds.items() if place[0] in model.model_fields]
    if problem["type"] == "extra_forbidden" and len(place) == 1 and knowing:
        verb = "has" if len(knowing) == 1 else "have"
        return f"{key}: the kind {kind!r} has no such key; {' and '.join(knowing)} {verb}"
    return f"{key}: {message(problem)}"


def first_problem(error: ValidationError) -> str:
    """The first of a validation's errors in one line, after the dotted name of its field."""
    problem = error.errors()[0]
    where, what = ".".join(map(str, problem["loc"])), message(problem)
    return f"{where}: {what}" if where else what
