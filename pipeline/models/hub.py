"""Downloads from the Hugging Face hub: safetensors and configurations, never code."""

from pathlib import Path
from shlex import quote

from pipeline.errors import ModelError

TEXTS = ("*.json", "*.txt", "*.model", "*.jinja")
WEIGHTS = {
    # a pipeline's root holds whole checkpoints in one file as well, which are not loaded
    "renderer": ("*/*.safetensors",),
    # likewise the same weights in the names of transformers
    "judge": ("open_clip*.safetensors",),
    "image_encoder": ("open_clip*.safetensors",),
}
UNUSED = ["*.non_ema.*"]


def fetch(reference: str, root: Path, role: str) -> Path:
    """The local snapshot of hub model `org/name[@revision]`, downloaded if it is not cached.

    Raises ModelError with the command that fetches it by hand.
    """
    from httpx2 import HTTPError
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = reference.partition("@")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"there is no folder {reference!r}, neither in {root} nor here")
    patterns = [*TEXTS, *WEIGHTS.get(role, ("*.safetensors",))]
    try:
        return Path(
            snapshot_download(
                name, revision=revision or None, allow_patterns=patterns, ignore_patterns=UNUSED
            )
        )
    except (HFValidationError, HTTPError, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if isinstance(error, OSError) and error.errno:
            raise ModelError(
                f"{reference!r} does not go into the hub's cache, {constants.HF_HUB_CACHE} "
                f"({reason}): make room there, or have HF_HOME name another folder."
            ) from error
        raise ModelError(
            f"{reference!r} is not in {root}, and the hub did not give it ({reason}). "
            f"By hand: {command(reference, root, patterns)}"
        ) from error


def command(reference: str, root: Path, patterns: list[str]) -> str:
    """The command line that downloads a hub model to the folder of its reference."""
    name, _, revision = reference.partition("@")
    pinned = f" --revision {revision}" if revision else ""
    include = " ".join(f"--include '{pattern}'" for pattern in patterns)
    return f"hf download {name}{pinned} {include} --local-dir {quote(str(root / reference))}"
