"""JSON documents in the store's format."""

import json
from typing import Any

from pipeline.job import FrozenModel

JSON = "application/json"


def document(value: FrozenModel | dict[str, Any]) -> bytes:
    """The value as indented UTF-8 JSON."""
    if isinstance(value, FrozenModel):
        return value.model_dump_json(indent=1).encode() + b"\n"
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
