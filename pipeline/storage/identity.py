"""A store's id, by which flows and workers verify that they share a store."""

import json
import uuid

from pipeline.errors import StoreError
from pipeline.ports import DOCUMENT_LIMIT, Store

NAME = "store.json"


def identity(store: Store) -> str:
    """The store's id, created at its first use. Raises StoreError."""
    found = known_identity(store)
    if not found:
        made = json.dumps({"id": uuid.uuid4().hex}).encode() + b"\n"
        store.put(NAME, made, content_type="application/json", new=True)
        # another flow may have created it first
        found = known_identity(store)
    return found


def known_identity(store: Store) -> str:
    """The store's id; empty before its first use. Raises StoreError."""
    try:
        return str(json.loads(store.get(NAME, DOCUMENT_LIMIT))["id"])
    except KeyError:
        return ""
    except (ValueError, TypeError) as error:
        raise StoreError(f"{store.address(NAME)} is damaged: {error}") from error
