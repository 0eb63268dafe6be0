"""The types that a job and its stages are made of: arrays, names, frozen models, their digests."""

import hashlib
import json
import re
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

ImageArray = NDArray[np.float32]
"""[height, width, 3], RGB in 0..1. It may hold NaN until the judge has called it valid."""

Embedding = tuple[float, ...]
"""An image's embedding, in the image adapter's width."""

BatchKey = tuple[str, int, int, int, int]
"""The model, width, height, and how many named and retrieved images steer the render."""


_ID = r"^[0-9A-Za-z_]{1,64}$"
JOB_ID = re.compile(_ID)
Id = Annotated[str, Field(pattern=_ID)]
"""A job's id, which also names its record's file."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

PLAIN_NAME = r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,99})?$"
"""The name of a stored thing, or none: never a path or an address."""

FILE_NAME = r"^[^./\\:|<>\s\x00-\x1f][^/\\:|<>\x00-\x1f]{0,99}$"
"""The name of a file without its suffix: no path, and not hidden."""


class FrozenModel(BaseModel):
    """A frozen value that refuses unknown fields, and numbers that JSON cannot hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


canonical_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode
"""JSON that is equal for equal values."""


def digest_of(value: Any) -> str:
    """A 24-digit hex digest of anything JSON can hold, equal for equal values."""
    return digest_of_json(canonical_json(value))


def digest_of_json(document: str) -> str:
    """The digest of a value from its canonical JSON."""
    return hashlib.sha256(document.encode()).hexdigest()[:24]
