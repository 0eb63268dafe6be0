"""Collections that LangChain, LlamaIndex or Haystack wrote: how each lays out vectors and payload.

What is in them came from elsewhere, so that nothing is taken for granted of a point.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_client.models import Distance, QueryRequest, ScoredPoint, VectorParams

from pipeline.errors import JobError
from pipeline.job import Passage
from pipeline.profile import CollectionProfile, Tool
from pipeline.retrieval.client import calling
from pipeline.retrieval.embedders import Embedder, Vectors
from pipeline.retrieval.sources.chunks import LONGEST, pieces
from pipeline.retrieval.sources.cleaning import cleaned, well_formed
from pipeline.retrieval.sources.texts import LABEL, TAGS, Text

READ = 20 * LONGEST
"""Letters of a text that are cleaned, of which a passage may be left."""
NODE = 1_000_000
"""Letters of a node of LlamaIndex that are parsed."""

_CUT_WORD = re.compile(r"\s\S{0,40}\Z")

Payload = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """How a tool lays out a collection.

    `vectors` are the names that it gives its dense vector, the unnamed one first; `text` takes the
    text out of a payload, if it is there; `prefix` is where metadata stands, empty for the top.
    """

    vectors: tuple[str, ...]
    text: Callable[[Payload], object]
    prefix: str = ""

    def metadata(self, payload: Payload) -> Payload:
        """The metadata of a payload; empty where there is none."""
        kept = payload.get(self.prefix.removesuffix(".")) if self.prefix else payload
        return kept if isinstance(kept, dict) else {}


def _node_text(payload: Payload) -> object:
    """The text of a node that LlamaIndex keeps as JSON; older versions keep the text by itself."""
    node = _parsed(payload.get("_node_content"))
    resource = node.get("text_resource")
    inner = resource.get("text") if isinstance(resource, dict) else None
    return node.get("text") or inner or payload.get("text")


def _parsed(content: object) -> Payload:
    if not isinstance(content, str) or len(content) > NODE:
        return {}
    try:
        node = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return node if isinstance(node, dict) else {}


LAYOUTS: dict[Tool, Layout] = {
    "langchain": Layout(("",), lambda payload: payload.get("page_content"), "metadata."),
    # both name their vector where a sparse one stands beside it
    "llamaindex": Layout(("", "text-dense"), _node_text),
    "haystack": Layout(("", "text-dense"), lambda payload: payload.get("content"), "meta."),
}


@dataclass(frozen=True)
class ExternalCollection:
    """A collection of another tool, seen to fit: how to ask it and how to read what it answers."""

    layout: Layout
    embedder: Embedder
    vector: str
    distance: Distance

    def search(self, vector: Vectors, depth: int, floor: float) -> QueryRequest:
        """The search of the dense vector. The floor counts where likeness is what is measured."""
        measured = self.distance in (Distance.COSINE, Distance.DOT)
        least = floor if floor and measured else None
        return QueryRequest(
            query=vector.tolist(), using=self.vector, limit=depth, score_threshold=least
        )

    def passage(self, found: ScoredPoint) -> Passage | None:
        """The passage that a search found, cleaned as ingested ones are; a long text is cut.

        None for a point without a text.
        """
        payload = found.payload or {}
        text = self.layout.text(payload)
        if not isinstance(text, str):
            return None
        try:
            whole = Text(text=_cut(text), **_labels(self.layout.metadata(payload)))
        except ValidationError:
            return None
        parts = pieces(whole)
        if not parts:
            return None
        kept = parts[0].model_dump(exclude={"image"})
        return Passage(**kept, id=str(found.id), score=found.score)


def open_external(
    client: QdrantClient, collection: str, written: CollectionProfile, embedder: Embedder
) -> ExternalCollection:
    """See that a collection is what the profile says of it.

    Raises JobError where it is not, Unavailable and ConfigError.
    """
    vectors = _vectors(client, collection, written)
    layout = LAYOUTS[written.written_by]
    names = (written.vector,) if written.vector else layout.vectors
    name = next((each for each in names if each in vectors), None)
    if name is None:
        raise JobError(
            f"Collection {collection!r} has no dense vector {_listed(names)}; there are: "
            f"{_listed(vectors)}. Name one in retrieval.collections.{collection}.vector."
        )
    params = vectors[name]
    if params.multivector_config:
        raise JobError(f"Collection {collection!r} has several vectors for each text.")
    if params.size != embedder.size:
        raise JobError(
            f"Collection {collection!r} has vectors of {params.size} components, and "
            f"{embedder.name} gives {embedder.size}; name the embedding that made it in "
            f"retrieval.collections.{collection}.embedding."
        )
    return ExternalCollection(layout, embedder, name, params.distance)


def _vectors(
    client: QdrantClient, collection: str, written: CollectionProfile
) -> dict[str, VectorParams]:
    """By name, the dense vectors of a collection; the unnamed one's is empty."""
    try:
        with calling(client):
            vectors = client.get_collection(collection).config.params.vectors
    except (UnexpectedResponse, ValueError) as error:
        raise JobError(
            f"There is no collection {collection!r}, which the profile says {written.written_by} "
            "wrote."
        ) from error
    return vectors if isinstance(vectors, dict) else {"": vectors} if vectors else {}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name or "(unnamed)" for name in names) or "none"


def _labels(metadata: Payload) -> dict[str, Any]:
    return {
        "title": _label(metadata, "title", "file_name") or _file_name(metadata),
        "source": _label(metadata, "source", "file_path", "url", "file_name"),
        "license": _label(metadata, "license"),
        "tags": _tags(metadata.get("tags")),
    }


def _label(metadata: Payload, *names: str) -> str:
    """The first of these that says something, as far as a label goes."""
    said = (metadata.get(name) for name in names)
    return next((_shortened(each, LABEL) for each in said if isinstance(each, str) and each), "")


def _file_name(metadata: Payload) -> str:
    return PurePosixPath(_label(metadata, "file_path").replace("\\", "/")).name


def _tags(said: object) -> tuple[str, ...]:
    tags = said if isinstance(said, list) else [said]
    return tuple(_shortened(tag, LABEL) for tag in tags[:TAGS] if isinstance(tag, str))


def _cut(text: str) -> str:
    """What fits a passage, in whole words."""
    tidy = cleaned(_shortened(text, READ))
    return tidy if len(tidy) <= LONGEST else _CUT_WORD.sub("", tidy[:LONGEST])


def _shortened(text: str, longest: int) -> str:
    return well_formed(text[:longest])
