"""The files that are loaded of a model; only these are checked and hashed."""

import hashlib
import re
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.models.checkpoints import checkpoint
from pipeline.models.code import refuse_code
from pipeline.models.digests import sha256_of
from pipeline.models.pipelines import unsupported
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
PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
TEXTS = {".json", ".txt", ".model", ".jinja"}
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt")
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
STEMS = ("model", "diffusion_pytorch_model")
"""The names that transformers and diffusers give to weights."""
TAGGED = re.compile(rf"(?:{'|'.join(STEMS)})\.(?:safetensors\.index\.)?(\w+)(?:-\d+-of-\d+)?\.\w+$")
"""The file of a variant."""


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
    if role == "image_adapter":
        return [adapter_file(folder)]
    config = folder / CONFIGS[role]
    if config.name == OPEN_CLIP_CONFIG and not config.is_file():
        return _two_tower_files(folder)
    if not config.is_file():
        if role == "renderer" and (folder / "modular_model_index.json").is_file():
            raise ModelError(f"{folder} {unsupported('ModularPipeline')}")
        raise ModelError(f"{folder} has no {config.name}{_single_files(folder, role)}")
    read_json(config)
    match config.name:
        case "model_index.json":
            return _pipeline_files(folder, variant_of(folder, variant))
        case "open_clip_config.json":
            return [*_texts(folder), open_clip_weights(folder)]
        case _ if role == "vision_language":
            return _reading_files(folder)
        case _ if role == "guard":
            return _with_preprocessing(folder, _model_files(folder, ""))
        case _:
            return _model_files(folder, "")


def _check_single(file: Path, role: str) -> None:
    """Raise ModelError for a file that is not the whole model of this role."""
    if file.suffix in PICKLES:
        raise ModelError(_pickled(file))
    if file.suffix == ".gguf":
        raise ModelError(
            f"{file} is a GGUF file, which is not loaded here: for a writer, serve it with "
            'llama.cpp or Ollama and set writer.kind = "endpoint"'
        )
    if role not in SINGLE or file.suffix != ".safetensors":
        raise ModelError(f"{file} is a file, and this model has to be a folder")
    checkpoint(file)


def _single_files(folder: Path, role: str) -> str:
    """A hint at the single files of a folder that was named in their place."""
    files = _files(folder, {".safetensors"}) if role in SINGLE else []
    return f"; to load a checkpoint in one file, name the file: {files[0]}" if files else ""


def embedding_size(folder: Path) -> int:
    """The numbers in an embedding of the two-tower model in a folder. Raises ModelError."""
    if (config := folder / OPEN_CLIP_CONFIG).is_file():
        return int(read_json(config)["model_cfg"]["embed_dim"])
    for file in _model_files(folder, ""):
        header = read_header(file) if file.suffix == ".safetensors" else {}
        for name in ("text_projection.weight", "text_model.head.weight"):
            if name in header:
                return int(header[name]["shape"][0])
    raise ModelError(f"{folder} holds no text tower; fetch it again")


def _two_tower_files(folder: Path) -> list[Path]:
    """The files of a CLIP or SigLIP in the format of transformers. Raises ModelError."""
    lack = f"{folder} has no {OPEN_CLIP_CONFIG}"
    if not (config := folder / "config.json").is_file():
        raise ModelError(f"{lack} nor {config.name}")
    if (kind := read_json(config).get("model_type")) == "siglip2":
        raise ModelError(
            f"{folder} is a SigLIP 2 for images of any size (NaFlex), which is not loaded: take "
            "one for a single size, such as google/siglip2-base-patch16-224"
        )
    if kind not in TWO_TOWERS:
        raise ModelError(f"{lack}, and its {config.name} is of {kind!r}, neither CLIP nor SigLIP")
    return _reading_files(folder)


def _reading_files(folder: Path) -> list[Path]:
    """The files of a transformers model that reads texts and images. Raises ModelError."""
    files = _with_preprocessing(folder, _model_files(folder, ""))
    names = {file.name for file in files}
    if not names & {*VOCABULARIES} and not any(file.suffix == ".model" for file in files):
        raise ModelError(f"{folder} has no tokenizer.json nor another vocabulary; fetch it again")
    return files


def _with_preprocessing(folder: Path, files: list[Path]) -> list[Path]:
    if not {file.name for file in files} & {*PROCESSORS}:
        raise ModelError(f"{folder} has no {PROCESSORS[0]}; fetch it again")
    return files


def adapter_file(folder: Path) -> Path:
    """The one file of weights in an adapter's folder. Raises ModelError."""
    match _files(folder, {".safetensors"}):
        case [file]:
            return file
        case []:
            raise ModelError(_no_weights(folder))
        case files:
            names = ", ".join(file.name for file in files)
            raise ModelError(f"{folder} holds {names}: an adapter's folder has one of them alone")


def open_clip_weights(folder: Path) -> Path:
    """The one file of weights that OpenCLIP takes from a folder. Raises ModelError."""
    known = [folder / name for name in OPEN_CLIP if (folder / name).is_file()]
    found = known[:1] or _files(folder, {".safetensors"})
    if not found:
        raise ModelError(_no_weights(folder))
    if found[0].suffix in PICKLES:
        raise ModelError(_pickled(found[0]))
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
        here = named.get(encoder.name) != [None, None] and encoder.is_dir()
        if not here or not _files(encoder, PICKLES | {".safetensors"}):
            spared |= T5
    return spared


def variant_of(folder: Path, variant: str) -> str:
    """The variant of a pipeline's weights that is loaded where `variant` is asked for: that one if
    any part has it, else the plain files, and where a part has none, the one variant that it has.
    """
    models = [part for part in _parts(folder) if _is_model(part)]
    if variant and any(_has_weights(part, variant) for part in models):
        return variant
    bare = [_tags(part) for part in models if not _has_weights(part, "")]
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
        raise ModelError(f"{config} names a class of its own, {kind}: a model's code is not run")
    if reason := unsupported(kind):
        raise ModelError(f"{config} names {kind}, which {reason}")
    parts = _parts(folder)
    if gone := next((part for part in parts if not part.is_dir()), None):
        raise ModelError(f"{gone} is missing, which {config} names; fetch the model again")
    files = [config]
    for part in parts:
        files += _model_files(part, variant) if _is_model(part) else _texts(part)
    return files


def _parts(folder: Path) -> list[Path]:
    """The folders of a pipeline's parts, without those that are left out."""
    spared, parts = left_out(folder), list[Path]()
    for name, entry in read_json(folder / "model_index.json").items():
        match entry:
            # a library and a class; other lists are settings
            case [str(), str()] if not name.startswith("_") and name not in spared:
                parts.append(folder / name)
    return parts


def _is_model(part: Path) -> bool:
    return part.is_dir() and (
        (part / "config.json").is_file() or bool(_files(part, PICKLES | {".safetensors"}))
    )


def _has_weights(part: Path, variant: str) -> bool:
    return any(_weights(part, stem, variant) for stem in STEMS)


def _tags(part: Path) -> set[str]:
    """The variants of a part's weights."""
    found = filter(None, (TAGGED.match(path.name) for path in part.iterdir()))
    return {match[1] for match in found if _has_weights(part, match[1])}


def _model_files(part: Path, variant: str) -> list[Path]:
    if not (part / "config.json").is_file():
        raise ModelError(f"{part}/config.json is missing; fetch it again")
    read_json(part / "config.json")
    if (adapter := part / "adapter_config.json").is_file():
        raise ModelError(f"{adapter} is of an adapter: merge it into the model, or remove it")
    weights = [
        path for stem in STEMS for path in _weights(part, stem, variant) or _weights(part, stem, "")
    ]
    if not weights:
        raise ModelError(_no_weights(part))
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


def _no_weights(part: Path) -> str:
    """The reason why a folder has no weights to load."""
    names = [path.name for path in part.iterdir()]
    if tags := sorted(_tags(part)):
        return f"{part} holds variants alone: set renderer.variant to one of {', '.join(tags)}"
    for name in sorted(names):
        if found := re.match(r"(.+)-\d+-of-\d+\.safetensors", name):
            index = part / f"{found[1]}.safetensors.index.json"
            return f"{index} is missing, which names the shards; fetch it again"
    if pickles := _files(part, PICKLES):
        return _pickled(pickles[0])
    others = ", ".join(path.name for path in _files(part, {".safetensors"}))
    wanted = " or ".join(f"{stem}.safetensors" for stem in STEMS)
    lack = f"{part} has no .safetensors weights by the name of {wanted}"
    return f"{lack}, only {others}" if others else f"{lack}; fetch it again"


def _pickled(path: Path) -> str:
    return (
        f"{path} is a pickle, which can run code when it is loaded; fetch the model's "
        f".safetensors weights into {path.parent}"
    )


def _texts(part: Path) -> list[Path]:
    """Configuration, vocabulary and chat templates. Raises ModelError without a vocabulary."""
    if (config := part / "tokenizer_config.json").is_file():
        kind = str(read_json(config).get("tokenizer_class"))
        held = any((part / name).is_file() for name in VOCABULARIES) or _files(part, {".model"})
        if not held and not kind.startswith(BYTEWISE):
            raise ModelError(f"{part} has no tokenizer.json nor another vocabulary; fetch it again")
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
