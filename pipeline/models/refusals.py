"""Reasons why a folder or a file is not loaded as a model, each with what to do."""

import ast
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.models.safetensors import read_json

PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
STEMS = ("model", "diffusion_pytorch_model")
"""The names that transformers and diffusers give to weights."""
TAGGED = re.compile(rf"(?:{'|'.join(STEMS)})\.(?:safetensors\.index\.)?(\w+)(?:-\d+-of-\d+)?\.\w+$")
"""The file of a variant."""
SHARD = re.compile(r"(\w+)(?:\.(\w+))?-\d+-of-\d+\.safetensors")
"""A shard: its name, and its variant."""
RENDERING = {"renderer", "unet", "previews"}
QUANTIZED: Mapping[str, str] = {
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed_tensors",
    "gguf": "gguf",
    "gptq": "optimum",
    "hqq": "hqq",
    "quanto": "optimum",
    "torchao": "torchao",
}
"""By method of quantization, the module without which its models do not load."""


def pickled(path: Path) -> str:
    return (
        f"{path} is a pickle, which can run code when it is loaded; fetch the model's "
        f".safetensors weights into {path.parent}"
    )


def gguf(file: Path, role: str) -> str:
    """The remedy for a GGUF file, by role."""
    lack = f"{file} is a GGUF file, which is not loaded here"
    match role:
        case "writer":
            return f'{lack}: serve it with llama.cpp or Ollama and set writer.kind = "endpoint"'
        case "renderer" | "unet":
            return (
                f"{lack}: take the model's folder in diffusers' layout (renderer.memory makes it "
                "fit a small GPU), or let a server that reads such files render, with "
                'renderer.kind = "a1111"'
            )
    return f"{lack}: take the model's folder with .safetensors weights"


def no_config(folder: Path, name: str, role: str) -> str:
    """The reason why a folder without the configuration `name` is no model for a role."""
    if (folder / "modular_model_index.json").is_file() and role == "renderer":
        from pipeline.models.pipelines import unsupported

        return f"{folder} {unsupported('ModularPipeline')}"
    if found := sorted(folder.glob("*.gguf")):
        return gguf(found[0], role)
    lack = f"{folder} has no {name}"
    if (folder / "adapter_config.json").is_file():
        return (
            f"{lack}: it is an adapter (PEFT), which is merged into its model first "
            "(`merge_and_unload` and `save_pretrained` of PEFT)"
        )
    if (folder / "model_index.json").is_file():
        part = "unet" if role == "unet" else "vae" if role == "previews" else ""
        within = f": name {folder / part}" if part else ""
        return f"{lack}: it is a whole pipeline, of which this model is one part{within}"
    singles = sorted(folder.glob("*.safetensors"))
    if singles and role == "renderer":
        return f"{lack}; to load a checkpoint in one file, name the file: {singles[0]}"
    return f"{lack}; fetch it again, or name the folder that has it"


def no_weights(part: Path, role: str, tags: Collection[str] = ()) -> str:
    """The reason why a part of a model in this role has no weights to load; `tags` are the variants
    that it has.
    """
    if tags and role == "renderer":
        known = ", ".join(sorted(tags))
        return f"{part} holds variants alone: set renderer.variant to one of {known}"
    names = sorted(path.name for path in part.iterdir())
    if tags:
        held = next(name for name in names if TAGGED.match(name))
        return (
            f"{part} holds a variant alone, {held}: fetch its plain weights, or leave out "
            f".{min(tags)} in the names of these"
        )
    for name in names:
        if shard := SHARD.match(name):
            tag = f".{shard[2]}" if shard[2] else ""
            index = part / f"{shard[1]}.safetensors.index{tag}.json"
            return f"{index} is missing, which names the shards; fetch it again"
    if pickles := [part / name for name in names if Path(name).suffix in PICKLES]:
        return pickled(pickles[0])
    if found := [part / name for name in names if name.endswith(".gguf")]:
        return gguf(found[0], role)
    others = ", ".join(name for name in names if name.endswith(".safetensors"))
    known = " or ".join(f"{stem}.safetensors" for stem in STEMS)
    lack = f"{part} has no .safetensors weights by the name of {known}"
    remedy = f", only {others}: give them that name if they are its weights" if others else ""
    return lack + (remedy or "; fetch it again")


def refuse_quantized(config: Path) -> None:
    """Raise ModelError for a configuration of quantized weights whose package is not installed."""
    settings = read_json(config).get("quantization_config")
    method = str(settings.get("quant_method")) if isinstance(settings, dict) else ""
    needed = QUANTIZED.get(method, "")
    if needed and find_spec(needed) is None:
        raise ModelError(
            f"{config.parent} is quantized by {method}, which needs the package {needed}: install "
            "it, or take the model without quantization"
        )


def refuse_no_writer(config: Path) -> None:
    """Raise ModelError for a configuration of a model that transformers does not write with."""
    kind = read_json(config).get("model_type")
    if isinstance(kind, str) and kind in _mapped("MODEL") - _mapped("MODEL_FOR_CAUSAL_LM"):
        raise ModelError(
            f"{config.parent} is a {kind}, which is no causal language model: take an instruct "
            'model for text, or serve this one and set writer.kind = "endpoint"'
        )


@cache
def _mapped(name: str) -> frozenset[str]:
    """The `model_type`s in a mapping of the installed transformers, whose source is read: it is not
    imported here.
    """
    package = find_spec("transformers")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).parent / "models" / "auto" / "modeling_auto.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(
                targets=[ast.Name(id=target)], value=ast.Call(args=[ast.List(elts=pairs)])
            ) if target == f"{name}_MAPPING_NAMES":
                return frozenset(ast.literal_eval(pair)[0] for pair in pairs)
    return frozenset()
