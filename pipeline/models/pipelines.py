"""The diffusers pipelines that rows can be rendered with, told by their source, without torch."""

import ast
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ASKED = frozenset({"prompt", "width", "height", "num_inference_steps"})
"""Arguments of a call that each row gives."""
FILLING = ASKED | {"image", "mask_image", "strength"}
"""Arguments that a row with image and mask gives."""
VIDEO = frozenset({"num_frames", "frames", "video", "video_length", "num_videos_per_prompt"})
CONTROL = frozenset(
    {"control_image", "controlnet_conditioning_scale", "adapter_conditioning_scale"}
)
OPTIONAL_IMAGE = frozenset(
    {
        "BriaFibo2Pipeline",
        "DreamLiteMobilePipeline",
        "DreamLitePipeline",
        "Flux2KleinKVPipeline",
        "Flux2KleinPipeline",
        "Flux2Pipeline",
        "FluxKontextPipeline",
        "GlmImagePipeline",
        "QwenImage21Pipeline",
        "ZImageOmniPipeline",
    }
)
"""Pipelines that render without their argument `image` as well; others with one need it."""
FAULTS: Mapping[str, str] = {
    "ChromaInpaintPipeline": "asks its transformer for a setting that Chroma's does not have",
    "OnnxStableDiffusionPipeline": "runs ONNX files",
    "StableCascadePriorPipeline": "makes no images, only what a decoder begins from",
}
"""Pipelines whose arguments do not tell that they cannot be used."""

_CLASS = re.compile(r"^class (\w+Pipeline)\b", re.MULTILINE)
_VARIANT = re.compile("ControlNetUnion|ControlNet|Control|PAG|Img2Img|Adapter")


class Call(NamedTuple):
    """The names of a function's arguments, and of those without a default."""

    takes: frozenset[str]
    needs: frozenset[str]


@cache
def unsupported(kind: str) -> str:
    """The reason and the remedy where no row can be rendered with a pipeline class, else empty."""
    if "Modular" in kind:
        return "is a modular pipeline: take the model's folder with a model_index.json"
    file = sources().get(kind)
    if file is None:
        return (
            f"is unknown to diffusers {version('diffusers')}: install a newer one, or take another"
            " model"
        )
    reason = FAULTS.get(kind)
    if "deprecated" in file.parts:
        reason = "is no longer maintained by diffusers"
    if reason is None:
        reason = _reason(kind, call_of(kind, file))
    plain = _VARIANT.sub("", kind)
    remedy = "take a text-to-image model"
    if plain != kind and plain in sources() and not unsupported(plain):
        remedy = f"let it name {plain} if the weights are of that kind, else {remedy}"
    return f"{reason}: {remedy}" if reason else ""


def _reason(kind: str, call: Call) -> str:
    if call.takes & VIDEO:
        return "makes videos"
    if "PAG" in kind:
        return "guides by perturbed attention, for which there is no setting"
    if call.takes & CONTROL:
        return "needs a control image, and ControlNets belong into renderer.controls"
    if call.takes >= FILLING:
        needed = call.needs - FILLING
    elif "image" in call.takes and kind not in OPTIONAL_IMAGE:
        return "needs an input image"
    elif lacking := ASKED - call.takes:
        return f"takes no {' and no '.join(sorted(lacking))}"
    else:
        needed = call.needs - ASKED
    return f"needs {' and '.join(sorted(needed))}" if needed else ""


@cache
def rooms() -> frozenset[str]:
    """The packages of diffusers' pipelines, which hold classes of some models' parts."""
    return frozenset(file.parent.name for file in sources().values())


def call_of(kind: str, file: Path) -> Call:
    """The call of the pipeline class `kind`, which `file` defines."""
    return _signature(_body(kind, file), "__call__")


@cache
def parts_needed(kind: str) -> frozenset[str]:
    """The parts that a pipeline class cannot be made without, as far as it lists them itself."""
    body = _body(kind, sources()[kind])
    optional = set[str]()
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id="_optional_components")], value=value):
                optional = {*ast.literal_eval(value)}
    return _signature(body, "__init__").needs - optional


def _body(kind: str, file: Path) -> list[ast.stmt]:
    module = ast.parse(file.read_text(encoding="utf-8"))
    (body,) = (
        each.body for each in module.body if isinstance(each, ast.ClassDef) and each.name == kind
    )
    return body


def _signature(body: list[ast.stmt], name: str) -> Call:
    for made in body:
        if isinstance(made, ast.FunctionDef) and made.name == name:
            names = [each.arg for each in made.args.args[1:]]
            needed = names[: len(names) - len(made.args.defaults)]
            optional = [each.arg for each in made.args.kwonlyargs]
            return Call(frozenset(names + optional), frozenset(needed))
    return Call(frozenset(), frozenset())


@cache
def sources() -> Mapping[str, Path]:
    """The source of each pipeline class of the installed diffusers, which is not imported."""
    found = find_spec("diffusers")
    assert found is not None
    assert found.origin is not None
    files = sorted((Path(found.origin).parent / "pipelines").rglob("pipeline_*.py"))
    return {
        name: file for file in files for name in _CLASS.findall(file.read_text(encoding="utf-8"))
    }
