"""Finds, checks and hashes model folders, without torch."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.models.hub import fetch
from pipeline.models.safetensors import check_index, check_safetensors, read_json
from pipeline.settings import Profile

CONFIGS: dict[str, str] = {
    "writer": "config.json",
    "renderer": "model_index.json",
    "unet": "config.json",
    "previews": "config.json",
    "judge": "open_clip_config.json",
    "embedding": "config.json",
    "images": "open_clip_config.json",
}
PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
DECISIVE = {".safetensors", ".json", ".txt", ".model", ".jinja"}
SPARE = {"safety_checker", "feature_extractor", "image_encoder"}
"""Parts of a diffusers folder that may be left out."""


def resolve(reference: str, root: Path, role: str) -> Path:
    """The folder of a model: one under `root`, any existing path, or else fetched from the hub.

    A hub id is `org/name` or `org/name@revision`. Raises ModelError, which says how to fetch it.
    """
    for folder in (root / reference, Path(reference).expanduser()):
        if reference and folder.is_dir():
            return folder
    return fetch(reference, root, role)


def role_folders(profile: Profile, root: Path) -> dict[str, Path]:
    """The folder of each model that a profile runs in this process. Raises ModelError.

    A role may say after a colon which collection it is for.
    """
    references: dict[str, str] = {"judge": profile.judge.model}
    if profile.writer.kind == "local":
        references["writer"] = profile.writer.model
    if profile.renderer.kind == "diffusers":
        renderer = profile.renderer
        extras = {
            "unet": renderer.unet,
            "previews": renderer.previews,
            "image_adapter": renderer.image_adapter,
        }
        references["renderer"] = renderer.model
        references |= {role: reference for role, reference in extras.items() if reference}
    if profile.retrieval.embedding != "hashed":
        references["embedding"] = profile.retrieval.embedding
    if profile.retrieval.images:
        references["images"] = profile.retrieval.images
    for name, collection in profile.retrieval.collections.items():
        if collection.embedding not in ("", "hashed"):
            references[f"embedding:{name}"] = collection.embedding
    return {role: resolve(reference, root, role) for role, reference in references.items()}


def verify(folder: Path, role: str | None = None) -> None:
    """Raise ModelError, naming the file, unless the folder holds a whole model in safetensors.

    With a role, its own configuration file is asked for; without, that of any role. Reads
    headers and configurations only, so it takes milliseconds whatever the model's size.
    """
    if not folder.is_dir():
        raise ModelError(f"folder {folder} is missing")
    if role == "image_adapter":
        check_safetensors(adapter_file(folder))
        return
    wanted = [CONFIGS[role.partition(":")[0]]] if role else sorted(set(CONFIGS.values()))
    config = next((folder / name for name in wanted if (folder / name).is_file()), None)
    if config is None:
        raise ModelError(f"{folder} has no {' or '.join(wanted)}")
    for part in _parts(folder, config):
        _verify_weights(part)


def adapter_file(folder: Path) -> Path:
    """The one file of weights in an adapter's folder. Raises ModelError."""
    match _weights(folder, {".safetensors"}):
        case [file]:
            return file
        case []:
            raise ModelError(_no_weights(folder))
        case files:
            names = ", ".join(file.name for file in files)
            raise ModelError(f"{folder} holds {names}: an adapter's folder has one of them alone")


def digest(folder: Path) -> str:
    """SHA-256 over the names and contents of every file that can decide what the model does.

    Raises ModelError where there is none.
    """
    files = sorted(path for path in folder.rglob("*") if _decisive(path.relative_to(folder)))
    if not files:
        raise ModelError(f"{folder} holds no model files")
    with ThreadPoolExecutor() as pool:
        sums = list(pool.map(_sha256, files))
    names = (path.relative_to(folder).as_posix() for path in files)
    listing = "".join(f"{sum_}  {name}\n" for sum_, name in zip(sums, names, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()


def _parts(folder: Path, config: Path) -> Iterator[Path]:
    """The folders with weights of their own: a pipeline's components, or the folder itself."""
    described = read_json(config)
    if config.name != "model_index.json":
        yield folder
        return
    for name, entry in described.items():
        if name.startswith("_") or not isinstance(entry, list) or not any(entry):
            continue
        part = folder / name
        if part.is_dir():
            if (part / "config.json").is_file() or _weights(part, PICKLES | {".safetensors"}):
                yield part
        elif name not in SPARE:
            raise ModelError(f"{part} is missing, which {config} names; fetch the model again")


def _verify_weights(part: Path) -> None:
    for name in ("config.json", "open_clip_config.json"):
        if (part / name).is_file():
            read_json(part / name)
            break
    else:
        raise ModelError(f"{part}/config.json is missing; fetch it again")
    weights = _weights(part, {".safetensors"})
    if not weights:
        raise ModelError(_no_weights(part))
    for path in weights:
        check_safetensors(path)
    for index in part.glob("*.safetensors.index*.json"):
        check_index(index)


def _no_weights(part: Path) -> str:
    pickles = _weights(part, PICKLES)
    if not pickles:
        return f"{part} has no .safetensors weights; fetch it again"
    return (
        f"{pickles[0]} is a pickle, which can run code when it is loaded; fetch the model's "
        f".safetensors weights into {part}"
    )


def _weights(part: Path, suffixes: set[str]) -> list[Path]:
    return sorted(path for path in part.iterdir() if path.suffix in suffixes)


def _decisive(name: Path) -> bool:
    return name.suffix in DECISIVE and not any(part.startswith(".") for part in name.parts)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
