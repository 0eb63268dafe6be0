"""Collections that LangChain, LlamaIndex and Haystack wrote, loaded from files.

`tests/data/collections/write.py` makes the files.
"""

import json
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient
from qdrant_client.models import PointStruct, VectorParams
from qdrant_client.models import SparseVectorParams as Sparse

FILES = Path(__file__).parents[1] / "data" / "collections"
TOOLS = ("langchain", "llamaindex", "haystack")
DOCUMENTS: list[dict[str, Any]] = json.loads((FILES / "documents.json").read_text("utf-8"))


def fill(
    client: QdrantClient, collection: str, tool: str, kind: str = "dense", **changes: Any
) -> None:
    """Make a collection as the tool did, but for `changes` of its dense vector's parameters."""
    written = json.loads((FILES / f"{tool}.json").read_text("utf-8"))["collections"][kind]
    config = written["config"]
    client.create_collection(
        collection,
        vectors_config=_vectors(config["vectors"], changes),
        sparse_vectors_config={
            name: Sparse(**params) for name, params in (config.get("sparse_vectors") or {}).items()
        },
    )
    client.upsert(collection, [PointStruct(**point) for point in written["points"]])


def _vectors(config: dict[str, Any], changes: dict[str, Any]) -> Any:
    if "size" in config:
        return VectorParams(**config | changes)
    return {name: VectorParams(**params | changes) for name, params in config.items()}
