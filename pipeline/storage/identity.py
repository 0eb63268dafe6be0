"""Which store this is: flows and workers that should share one can see whether they do."""

import json
import uuid

from pipeline.errors import StoreError
from pipeline.ports import DOCUMENT_LIMIT, Store

NAME = "store.json"


def identity(store: Store) -> str:
    """The store's own id, made the first time. Raises StoreError."""
    found = known_identity(store)
    if not found:
        made = json.dumps({"id": uuid.uuid4().hex}).encode() + b"\n"
        store.put(NAME, made, content_type="application/json", new=True)
        # another flow's, where that was first
        found = known_identity(store)
    return found


def known_identity(store: Store) -> str:
    """The store's own id; empty where no flow has used it yet. Raises StoreError."""
    try:
        return str(json.loads(store.get(NAME, DOCUMENT_LIMIT))["id"])
    except KeyError:
        return ""
    except (ValueError, TypeError) as error:
        raise StoreError(f"{store.address(NAME)} is damaged: {error}") from error
