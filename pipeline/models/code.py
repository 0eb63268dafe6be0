"""Refusal of model folders that contain code, or that make a library fetch something else."""

import json
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.models.safetensors import CONFIG_BYTES, read_json

FOREIGN = ("auto_map", "trust_remote_code", "transformers_weights")
"""Entries with which a configuration names code, lets it run, or names other weights."""
VOCABULARIES = {"tokenizer.json", "vocab.json", "added_tokens.json"}
"""Files whose keys are tokens."""
TOWERS = ", not from the folder: take a model that has both towers in its own files"
TOKENIZER_SETTINGS = {"clean", "strip_sep_token", "language", "reduction_mask"}
"""Settings of OpenCLIP's own tokenizers; any others go to transformers."""


def refuse_code(folder: Path) -> None:
    """Raise ModelError where a file in the folder is code or a configuration names some."""
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix == ".py":
            raise ModelError(f"{path} is code, and no code of a model's is run; remove the file")
        if path.suffix == ".json" and path.name not in VOCABULARIES and ".index." not in path.name:
            _refuse_entries(path)
    if (config := folder / "open_clip_config.json").is_file():
        _refuse_hub_names(config)


def _refuse_entries(path: Path) -> None:
    if path.stat().st_size > CONFIG_BYTES:
        raise ModelError(f"{path} is larger than a configuration's {CONFIG_BYTES} bytes")
    try:
        value = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ModelError(f"{path} is nested too deep") from error
    except ValueError:
        # no library can read it either
        return
    left = [value]
    while left:
        match left.pop():
            case dict() as found:
                if key := next((key for key in FOREIGN if found.get(key)), None):
                    raise ModelError(
                        f"{path} has {key!r}: code and weights that a model names elsewhere are "
                        "not loaded; where the libraries know the model without it, delete that "
                        "entry"
                    )
                left += found.values()
            case list() as found:
                left += found


def _refuse_hub_names(path: Path) -> None:
    config = read_json(path).get("model_cfg")
    towers = [config.get(name, {}) for name in ("text_cfg", "vision_cfg")] if config else []
    if not towers or not all(isinstance(tower, dict) for tower in towers):
        raise ModelError(f"{path} describes no model; fetch it again")
    text, vision = towers
    settings = text.get("tokenizer_kwargs") or {}
    if unknown := sorted(set(settings) - TOKENIZER_SETTINGS):
        raise ModelError(f"{path} has unknown tokenizer_kwargs: {', '.join(unknown)}")
    if name := text.get("hf_model_name"):
        raise ModelError(f"{path} takes its text tower {name!r} from the hub{TOWERS}")
    name = str(vision.get("timm_model_name", ""))
    if ":" in name or "/" in name:
        raise ModelError(f"{path} takes its image tower {name!r} from elsewhere{TOWERS}")
