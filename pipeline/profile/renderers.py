"""The sections of renderers."""

from math import isfinite
from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, Tag, TypeAdapter, model_validator

from pipeline.job import FrozenModel
from pipeline.options import settings_by
from pipeline.profile.base import BY_SHAPE, LIST, TABLE, VALUE, Dtype, PlainName, Section

Preprocessor = Literal["none", "canny", "invert", "luminance"]


def _scalar(value: object) -> object:
    if isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value)):
        return value
    raise ValueError("Input should be true or false, a finite number or a text")


Scalar = Annotated[bool | int | float | str, PlainValidator(_scalar)]


class ControlProfile(FrozenModel):
    """A ControlNet that rows may name, and how a row's image becomes the one that it reads."""

    model: str = Field(description="model reference of a ControlNet, or the server's name of it")
    preprocessor: Preprocessor = Field(
        default="none", description="what makes the control image of a row's image"
    )


Scale = Annotated[float, Field(ge=0, le=1)]
LayerScales = Annotated[Annotated[Scale, Tag(VALUE)] | Annotated[list[Scale], Tag(LIST)], BY_SHAPE]
BlockScales = Annotated[
    Annotated[Scale, Tag(VALUE)] | Annotated[dict[str, LayerScales], Tag(TABLE)], BY_SHAPE
]
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
    scale: Annotated[Annotated[Scale, Tag(VALUE)] | Annotated[UNetScales, Tag(TABLE)], BY_SHAPE] = (
        Field(default=1.0, description="its own weight, times the row's; or by the UNet's parts")
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
    image_adapter: Annotated[
        Annotated[str, Tag(VALUE)] | Annotated[dict[PlainName, ImageAdapterProfile], Tag(TABLE)],
        BY_SHAPE,
    ] = Field(default="", description="model reference of an IP-Adapter, or several by name")
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
        """The IP-Adapters by role. Those with a name have two colons, because one comes before the
        name of a renderer, which may be the same.
        """
        if isinstance(self.image_adapter, str):
            named = {"image_adapter": self.image_adapter} if self.image_adapter else {}
            return {role: ImageAdapterProfile(model=each) for role, each in named.items()}
        return {f"image_adapter::{name}": each for name, each in self.image_adapter.items()}

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


class RendererDefaults(settings_by("profile", without=["model"])):  # type: ignore[misc]
    """Values in place of the profile's defaults in rows of one renderer; None keeps those."""


class NamedDiffusersProfile(DiffusersProfile):
    """A diffusion model that rows may choose by name."""

    defaults: RendererDefaults = RendererDefaults()


class NamedA1111Profile(A1111Profile):
    """An A1111-compatible server that rows may choose by name."""

    defaults: RendererDefaults = RendererDefaults()


RendererProfile = Annotated[DiffusersProfile | A1111Profile, Field(discriminator="kind")]
NamedRenderer = NamedDiffusersProfile | NamedA1111Profile
RENDERER: TypeAdapter[RendererProfile] = TypeAdapter(RendererProfile)
