"""Loading of a model in a folder with all of its weights: transformers puts random numbers in the
place of missing ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""`trust_remote_code` is explicit because transformers would prompt at the terminal without it."""


def load_whole(kind: Any, folder: Path, *unread: str, **settings: Any) -> Any:
    """The model that a class of diffusers or transformers loads from a folder. Raises ModelError
    for one that lacks weights, but for those whose names begin with one of `unread`, and for one
    with weights of other shapes than its configuration's.
    """
    model, report = kind.from_pretrained(
        folder,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that the report names them
        **LOCAL,
        **settings,
    )
    lacking = sorted(key for key in report["missing_keys"] if not key.startswith(unread))
    if lacking:
        raise ModelError(f"{folder} lacks weights: {_shown(lacking)}; fetch it again")
    if other := sorted(key for key, *_ in report["mismatched_keys"]):
        raise ModelError(
            f"{folder} has weights of other shapes than its config.json says: {_shown(other)}; "
            "fetch both again"
        )
    return model


def _shown(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if names[1:] else "")
