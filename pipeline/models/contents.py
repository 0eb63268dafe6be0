"""The files that are loaded of a model; only these are checked and hashed."""

import hashlib
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.models.checkpoints import checkpoint
from pipeline.models.code import refuse_code
from pipeline.models.digests import sha256_of
from pipeline.models.onnx import onnx_file
from pipeline.models.pipelines import parts_needed, rooms, unsupported
from pipeline.models.refusals import (
    PICKLES,
    STEMS,
    TAGGED,
    gguf,
    no_config,
    no_weights,
    pickled,
    refuse_no_writer,
    refuse_quantized,
)
from pipeline.models.safetensors import read_header, read_json, shards

OPEN_CLIP_CONFIG = "open_clip_config.json"
CONFIGS: dict[str, str] = {
    "writer": "config.json",
    "renderer": "model_index.json",
    "unet": "config.json",
    "previews": "config.json",
    "control": "config.json",
    "judge": OPEN_CLIP_CONFIG,
    "vision_language": "config.json",
    "embedding": "config.json",
    "image_encoder": OPEN_CLIP_CONFIG,
    "concept": OPEN_CLIP_CONFIG,
    "guard": "config.json",
}
SINGLE = {"renderer"}
"""Roles whose model may be a single file."""
LONE = {"image_adapter", "aesthetic_head"}
"""Roles whose model is one file of weights in its folder, without a configuration."""
TEXTS = {".json", ".txt", ".model", ".jinja"}
SCHEDULER, TOKENIZER = "scheduler_config.json", "tokenizer_config.json"
LIBRARIES = {"diffusers", "transformers"}
READING = {"writer", "embedding"}
"""Roles whose folder holds a tokenizer of transformers."""
BYTEWISE = ("ByT5", "Canine")
"""Tokenizers without a vocabulary."""
ABOUT = ("readme", "license", "notice")
SPARE = {"safety_checker", "feature_extractor", "image_encoder"}
"""Parts of a diffusers folder that may be left out."""
T5 = {"text_encoder_3", "tokenizer_3"}
"""Parts of Stable Diffusion 3 that may be left out, both."""
TWO_TOWERS = ("clip", "siglip")
"""Models of transformers that read texts and images of one size."""
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Settings of the preprocessing of images."""
OPEN_CLIP = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""The names that OpenCLIP looks for in a folder, the first one first."""


def verify(model: Path, role: str, variant: str = "") -> None:
    """Raise ModelError, naming the file, unless the folder, or the single file, holds a whole model
    for the role.

    Reads headers and configurations only, so it takes milliseconds whatever the model's size.
    """
    for path in loaded_files(model, role, variant):
        if path.suffix == ".safetensors":
            read_header(path)


def digest(model: Path, role: str, variant: str = "", cache: Path | None = None) -> str:
    """SHA-256 over the names and contents of the files that are loaded, or of a single file as it
    is; `cache` is the file that remembers the files' own. Raises ModelError.
    """
    files = sorted(loaded_files(model, role, variant))
    sums = sha256_of(files, cache)
    if files == [model]:
        return sums[0]
    names = (path.relative_to(model).as_posix() for path in files)
    listing = "".join(f"{sum_}  {name}\n" for sum_, name in zip(sums, names, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()


def loaded_files(folder: Path, role: str, variant: str = "") -> list[Path]:
    """The files that are loaded for a model in this role, with a variant's weights where it has
    any; a single file is its own.

    A role may name one of several after a colon. Raises ModelError for a folder with code, for a
    single file that is no whole checkpoint, and where a file is missing.
    """
    role = role.partition(":")[0]
    if folder.is_file():
        _check_single(folder, role)
        return [folder]
    if not folder.is_dir():
        raise ModelError(f"folder {folder} is missing")
    refuse_code(folder)
    if role in LONE:
        return [sole_weights(folder)]
    config = folder / CONFIGS[role]
    if config.name == OPEN_CLIP_CONFIG and not config.is_file():
        return _two_tower_files(folder)
    if not config.is_file():
        raise ModelError(no_config(folder, config.name, role))
    read_json(config)
    if role == "writer":
        refuse_no_writer(config)
    if role in READING:
        check_vocabulary(folder)
    match config.name:
        case "model_index.json":
            return _pipeline_files(folder, variant_of(folder, variant))
        case "open_clip_config.json":
            text = read_json(config).get("model_cfg", {}).get("text_cfg", {})
            if text.get("hf_tokenizer_name"):
                check_vocabulary(folder)
            return [*_texts(folder), open_clip_weights(folder)]
        case _ if role == "vision_language":
            return _reading_files(folder, role)
        case _ if role == "guard":
            file = onnx_file(folder)
            files = [*_texts(folder), file] if file else _model_files(folder, role)
            return _with_preprocessing(folder, files)
        case _:
            return _model_files(folder, role)


def _check_single(file: Path, role: str) -> None:
    """Raise ModelError for a file that is not the whole model of this role."""
    if file.suffix in PICKLES:
        raise ModelError(pickled(file))
    if file.suffix == ".gguf":
        raise ModelError(gguf(file, role))
    if role not in SINGLE or file.suffix != ".safetensors":
        raise ModelError(
            f"{file} is a file, and this model has to be a folder: name the folder that holds it "
            f"and its {CONFIGS.get(role, 'configuration')}"
        )
    checkpoint(file)


def embedding_size(folder: Path) -> int:
    """The numbers in an embedding of the two-tower model in a folder. Raises ModelError."""
    if (config := folder / OPEN_CLIP_CONFIG).is_file():
        return int(read_json(config)["model_cfg"]["embed_dim"])
    for file in _model_files(folder, "judge"):
        header = read_header(file) if file.suffix == ".safetensors" else {}
        for name in ("text_projection.weight", "text_model.head.weight"):
            if name in header:
                return int(header[name]["shape"][0])
    raise ModelError(f"{folder} holds no text tower; fetch it again")


def _two_tower_files(folder: Path) -> list[Path]:
    """The files of a CLIP or SigLIP in the format of transformers. Raises ModelError."""
    if not (config := folder / "config.json").is_file():
        raise ModelError(no_config(folder, f"{OPEN_CLIP_CONFIG} nor {config.name}", "judge"))
    if (kind := read_json(config).get("model_type")) == "siglip2":
        raise ModelError(
            f"{folder} is a SigLIP 2 for images of any size (NaFlex), which is not loaded: take "
            "one for a single size, such as google/siglip2-base-patch16-224"
        )
    if kind not in TWO_TOWERS:
        raise ModelError(
            f"{folder} has no {OPEN_CLIP_CONFIG}, and its {config.name} is of {kind!r}, neither "
            "CLIP nor SigLIP: take a model of these"
        )
    return _reading_files(folder, "judge")


def _reading_files(folder: Path, role: str) -> list[Path]:
    """The files of a transformers model that reads texts and images. Raises ModelError."""
    files = _with_preprocessing(folder, _model_files(folder, role))
    check_vocabulary(folder)
    return files


def _with_preprocessing(folder: Path, files: list[Path]) -> list[Path]:
    if not {file.name for file in files} & {*PROCESSORS}:
        raise ModelError(f"{folder} has no {PROCESSORS[0]}; fetch it again")
    return files


def sole_weights(folder: Path) -> Path:
    """The one file of weights in a folder. Raises ModelError."""
    match _files(folder, {".safetensors"}):
        case [file]:
            return file
        case []:
            raise ModelError(no_weights(folder, "image_adapter"))
        case files:
            names = ", ".join(file.name for file in files)
            raise ModelError(f"{folder} holds {names}: this folder has to have one of them alone")


def open_clip_weights(folder: Path) -> Path:
    """The one file of weights that OpenCLIP takes from a folder. Raises ModelError."""
    known = [folder / name for name in OPEN_CLIP if (folder / name).is_file()]
    found = known[:1] or _files(folder, {".safetensors"})
    if not found:
        raise ModelError(no_weights(folder, "judge"))
    if found[0].suffix in PICKLES:
        raise ModelError(pickled(found[0]))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ModelError(f"{folder} holds {names}: call one of them {OPEN_CLIP[0]}")
    return found[0]


def left_out(folder: Path) -> set[str]:
    """Optional components that a pipeline's index names but that are missing, or only pickles."""
    named = read_json(folder / "model_index.json")
    spared = {
        part
        for part in SPARE & named.keys()
        if not (folder / part).is_dir()
        or (_files(folder / part, PICKLES) and not _files(folder / part, {".safetensors"}))
    }
    if str(named.get("_class_name")).startswith("StableDiffusion3"):
        encoder = folder / "text_encoder_3"
        if named.get(encoder.name) == [None, None] or not encoder.is_dir():
            spared |= T5
    return spared


def variant_of(folder: Path, variant: str) -> str:
    """The variant of a pipeline's weights that is loaded where `variant` is asked for: that one if
    any part has it, else the plain files, and where a part has none, the one variant that it has.
    """
    models = [part for part in _parts(folder) if _is_model(part)]
    if variant and any(has_weights(part, variant) for part in models):
        return variant
    bare = [_tags(part) for part in models if not has_weights(part, "")]
    common = set[str].intersection(*bare) if bare else set()
    return common.pop() if len(common) == 1 else ""


def remarks(model: Path, variant: str = "") -> list[str]:
    """Sentences on what is loaded of a pipeline in place of what a profile asks for."""
    asked = f'renderer.variant = "{variant}" has no effect'
    if model.is_file():
        return [f"{asked}: {model.name} is a single file"] if variant else []
    said = list[str]()
    if (loaded := variant_of(model, variant)) != variant:
        what = f'its files of variant "{loaded}"' if loaded else "its plain files"
        lack = f'variant "{variant}"' if variant else "plain weights"
        said.append(f"{model.name} has no {lack}: {what} are loaded")
    if left_out(model) >= T5:
        said.append(f"{model.name} is loaded without its T5 encoder, which is missing")
    return said


def _pipeline_files(folder: Path, variant: str) -> list[Path]:
    config = folder / "model_index.json"
    kind = read_json(config).get("_class_name")
    if not isinstance(kind, str):
        raise ModelError(
            f"{config} names a class of its own, {kind}: a model's code is not run; take a model "
            "of a diffusers class"
        )
    if reason := unsupported(kind):
        raise ModelError(f"{config} names {kind}, which {reason}")
    named, spared = read_json(config), left_out(folder)
    for name in sorted(parts_needed(kind) - spared):
        if named.get(name) in (None, [None, None]):
            raise ModelError(
                f"{config} names no {name}, which a {kind} needs: fetch the model again, or put "
                "that part of the model that it was made from into the folder and its index"
            )
    files = [config]
    for part, library, name in parts_of(folder):
        if library not in LIBRARIES and library not in rooms():
            raise ModelError(
                f"{config} names a class of {library}, {name}: a model's code is not run; take the "
                "model with classes of diffusers and transformers"
            )
        if not part.is_dir():
            raise ModelError(f"{part} is missing, which {config} names; fetch the model again")
        files += _model_files(part, "renderer", variant) if _is_model(part) else _texts(part)
        if "Tokenizer" in name:
            check_vocabulary(part)
        if name.endswith("Scheduler") and not (part / SCHEDULER).is_file():
            raise ModelError(f"{part / SCHEDULER} is missing; fetch it again")
    return files


def parts_of(folder: Path) -> list[tuple[Path, str, str]]:
    """The folders of a pipeline's parts, each with its library and class, without those that are
    left out.
    """
    spared, parts = left_out(folder), list[tuple[Path, str, str]]()
    for name, entry in read_json(folder / "model_index.json").items():
        match entry:
            # other lists are settings
            case [str(library), str(kind)] if not name.startswith("_") and name not in spared:
                parts.append((folder / name, library, kind))
    return parts


def _parts(folder: Path) -> list[Path]:
    return [part for part, _, _ in parts_of(folder)]


def _is_model(part: Path) -> bool:
    return part.is_dir() and (
        (part / "config.json").is_file() or bool(_files(part, PICKLES | {".safetensors"}))
    )


def has_weights(part: Path, variant: str) -> bool:
    """True where a part has files of this variant, or plain ones for an empty one."""
    return any(_weights(part, stem, variant) for stem in STEMS)


def _tags(part: Path) -> set[str]:
    """The variants of a part's weights."""
    found = filter(None, (TAGGED.match(path.name) for path in part.iterdir()))
    return {match[1] for match in found if has_weights(part, match[1])}


def _model_files(part: Path, role: str, variant: str = "") -> list[Path]:
    config = part / "config.json"
    if not config.is_file():
        raise ModelError(f"{config} is missing; fetch it again")
    refuse_quantized(config)
    if (adapter := part / "adapter_config.json").is_file():
        raise ModelError(f"{adapter} is of an adapter: merge it into the model, or remove it")
    weights = [
        path for stem in STEMS for path in _weights(part, stem, variant) or _weights(part, stem, "")
    ]
    if not weights:
        without = f"; without {part} the model renders too" if part.name in T5 else ""
        raise ModelError(no_weights(part, role, _tags(part)) + without)
    return [*_texts(part), *weights]


def _weights(part: Path, stem: str, variant: str) -> list[Path]:
    """The files that a library loads by this name: a whole one, or an index and its shards."""
    tag = f".{variant}" if variant else ""
    whole = part / f"{stem}{tag}.safetensors"
    index = part / f"{stem}.safetensors.index{tag}.json"
    found = [whole] if whole.is_file() else []
    sharded = [index, *shards(index)] if index.is_file() else []
    if len(sharded) < 2:
        return found
    # of both, transformers takes the whole one and diffusers the index
    return found or sharded if stem == "model" else sharded


def check_vocabulary(folder: Path) -> None:
    """Raise ModelError where a tokenizer's folder lacks its vocabulary."""
    config = folder / TOKENIZER
    if config.is_file() and str(read_json(config).get("tokenizer_class")).startswith(BYTEWISE):
        return
    names = {path.name for path in folder.iterdir()}
    if names & {"tokenizer.json", "vocab.txt"} or _files(folder, {".model"}):
        return
    if "vocab.json" not in names:
        raise ModelError(f"{folder} has no tokenizer.json nor another vocabulary; fetch it again")
    if "merges.txt" not in names:
        raise ModelError(f"{folder} has a vocab.json without its merges.txt; fetch it again")


def _texts(part: Path) -> list[Path]:
    """Configuration, vocabulary and chat templates. Raises ModelError without a vocabulary."""
    if (part / TOKENIZER).is_file():
        check_vocabulary(part)
    templates = part / "additional_chat_templates"
    found = _files(part, TEXTS) + (_files(templates, TEXTS) if templates.is_dir() else [])
    return [
        path
        for path in found
        if ".index." not in path.name and not path.name.lower().startswith(ABOUT)
    ]


def _files(part: Path, suffixes: set[str]) -> list[Path]:
    found = (path for path in part.iterdir() if path.suffix in suffixes and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))
