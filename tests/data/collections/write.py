"""Writes LIBRARY.json beside it: what a library's own Qdrant store makes of documents.json.

The libraries' pins clash, so that each runs in an environment of its own; from the checkout:

    PYTHONPATH=. uv run --no-project --with pydantic-settings --with langchain-qdrant \
        tests/data/collections/write.py langchain
    PYTHONPATH=. uv run --no-project --with pydantic-settings \
        --with llama-index-vector-stores-qdrant tests/data/collections/write.py llamaindex
    PYTHONPATH=. uv run --no-project --with pydantic-settings --with qdrant-haystack \
        tests/data/collections/write.py haystack

Each writes two collections: `dense`, and `hybrid` with a sparse vector beside the dense one.
"""

import json
import sys
import uuid
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient

from pipeline.retrieval.lexical import HashedEmbedder, document_vector, evenly

HERE = Path(__file__).parent
DIGITS = 6

Document = dict[str, Any]


def langchain(documents: list[Document], hybrid: bool) -> tuple[QdrantClient, str]:
    """As `QdrantVectorStore.from_documents` does it."""
    from langchain_core.documents import Document as Theirs
    from langchain_core.embeddings import Embeddings
    from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings, SparseVector

    class Dense(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [embedded(text) for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return embedded(text)

    class Sparse(SparseEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[SparseVector]:
            return [self.embed_query(text) for text in texts]

        def embed_query(self, text: str) -> SparseVector:
            indices, values = sparse(text)
            return SparseVector(indices=indices, values=values)

    store = QdrantVectorStore.from_documents(
        [Theirs(page_content=d["text"], metadata=metadata(d)) for d in documents],
        Dense(),
        sparse_embedding=Sparse() if hybrid else None,
        ids=[identity(d) for d in documents],
        location=":memory:",
        collection_name="facts",
        retrieval_mode=RetrievalMode.HYBRID if hybrid else RetrievalMode.DENSE,
    )
    return store.client, "facts"


def llamaindex(documents: list[Document], hybrid: bool) -> tuple[QdrantClient, str]:
    """As an index does it once its nodes are embedded."""
    from llama_index.core.schema import TextNode
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    def encode(texts: list[str]) -> tuple[list[list[int]], list[list[float]]]:
        found = [sparse(text) for text in texts]
        return [indices for indices, _ in found], [values for _, values in found]

    client = QdrantClient(":memory:")
    store = QdrantVectorStore(
        "facts", client, enable_hybrid=hybrid, sparse_doc_fn=encode, sparse_query_fn=encode
    )
    store.add(
        [
            TextNode(
                id_=identity(d), text=d["text"], metadata=metadata(d), embedding=embedded(d["text"])
            )
            for d in documents
        ]
    )
    return client, "facts"


def haystack(documents: list[Document], hybrid: bool) -> tuple[QdrantClient, str]:
    """As a DocumentWriter does it once its documents are embedded."""
    from haystack.dataclasses import Document as Theirs
    from haystack.dataclasses import SparseEmbedding
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    store = QdrantDocumentStore(
        ":memory:",
        index="facts",
        embedding_dim=HashedEmbedder.size,
        use_sparse_embeddings=hybrid,
        progress_bar=False,
    )
    store.write_documents(
        [
            Theirs(
                id=identity(d),
                content=d["text"],
                meta=metadata(d),
                embedding=embedded(d["text"]),
                sparse_embedding=SparseEmbedding(*sparse(d["text"])) if hybrid else None,
            )
            for d in documents
        ]
    )
    assert store._client is not None
    return store._client, "facts"


LIBRARIES: dict[str, tuple[Callable[..., tuple[QdrantClient, str]], tuple[str, ...]]] = {
    "langchain": (langchain, ("langchain-qdrant", "langchain-core")),
    "llamaindex": (llamaindex, ("llama-index-vector-stores-qdrant", "llama-index-core")),
    "haystack": (haystack, ("qdrant-haystack", "haystack-ai")),
}


def metadata(document: Document) -> Document:
    """All but the text."""
    return {key: value for key, value in document.items() if key != "text"}


def identity(document: Document) -> str:
    """The same in every run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, document["text"]))


def embedded(text: str) -> list[float]:
    """The dense vector of a text."""
    return [float(x) for x in HashedEmbedder(evenly).embed([text])[0]]


def sparse(text: str) -> tuple[list[int], list[float]]:
    """The sparse vector of a text: indices and values."""
    vector = document_vector(text)
    return vector.indices, vector.values


def dumped(client: QdrantClient, collection: str) -> Document:
    """How a collection is configured, and its points with payload and vectors."""
    params = client.get_collection(collection).config.params
    points, _ = client.scroll(collection, limit=1000, with_payload=True, with_vectors=True)
    return {
        "config": params.model_dump(
            mode="json", include={"vectors", "sparse_vectors"}, exclude_none=True
        ),
        "points": [
            point.model_dump(mode="json", include={"id", "payload", "vector"}) for point in points
        ],
    }


def rounded(value: Any) -> Any:
    """Numbers as short as they may be."""
    if isinstance(value, float):
        return round(value, DIGITS) or 0
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return {k: rounded(v) for k, v in value.items()} if isinstance(value, dict) else value


def main(library: str) -> None:
    """Write the file of a library."""
    write, packages = LIBRARIES[library]
    documents = json.loads((HERE / "documents.json").read_text(encoding="utf-8"))
    written = {
        "library": library,
        "versions": {name: version(name) for name in (*packages, "qdrant-client")},
        "collections": {
            kind: dumped(*write(documents, hybrid=kind == "hybrid")) for kind in ("dense", "hybrid")
        },
    }
    text = json.dumps(rounded(written), ensure_ascii=False, separators=(",", ":"))
    (HERE / f"{library}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
