"""External collections, written by LangChain, LlamaIndex or Haystack: vectors and payload of each.

Their points are untrusted input: any field may be missing or of any type.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_client.models import QueryRequest, ScoredPoint

from pipeline.errors import JobError
from pipeline.job import Passage
from pipeline.profile import CollectionProfile, Tool
from pipeline.retrieval.client import calling
from pipeline.retrieval.embedders import Embedder, Vectors
from pipeline.retrieval.sources.chunks import LONGEST, pieces
from pipeline.retrieval.sources.cleaning import cleaned, well_formed
from pipeline.retrieval.sources.texts import LABEL, TAGS, Text

READ = 20 * LONGEST
"""Characters of a text that are cleaned before it is cut to a passage."""
NODE = 1_000_000
"""Characters of a LlamaIndex node; a longer one is not parsed."""

_CUT_WORD = re.compile(r"\s\S{0,40}\Z")

Payload = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """A tool's layout of a collection.

    `vectors` are the names of its dense vector, the unnamed one first; `text` extracts the text
    from a payload, if it is there; `prefix` is the path of the metadata, empty for the top level.
    """

    vectors: tuple[str, ...]
    text: Callable[[Payload], object]
    prefix: str = ""

    def metadata(self, payload: Payload) -> Payload:
        """The metadata of a payload; empty if there is none."""
        kept = payload.get(self.prefix.removesuffix(".")) if self.prefix else payload
        return kept if isinstance(kept, dict) else {}


def _node_text(payload: Payload) -> object:
    """The text of a LlamaIndex node, which is kept as JSON; old versions keep the plain text."""
    node, content = None, payload.get("_node_content")
    if isinstance(content, str) and len(content) <= NODE:
        with suppress(ValueError, RecursionError):
            node = json.loads(content)
    if not isinstance(node, dict):
        return payload.get("text")
    resource = node.get("text_resource")
    inner = resource.get("text") if isinstance(resource, dict) else None
    return node.get("text") or inner or payload.get("text")


LAYOUTS: dict[Tool, Layout] = {
    "langchain": Layout(("",), lambda payload: payload.get("page_content"), "metadata."),
    # both name their dense vector if there is a sparse one too
    "llamaindex": Layout(("", "text-dense"), _node_text),
    "haystack": Layout(("", "text-dense"), lambda payload: payload.get("content"), "meta."),
}


@dataclass(frozen=True)
class ExternalCollection:
    """An external collection that was checked: builds its searches and reads its results."""

    layout: Layout
    embedder: Embedder
    vector: str

    def search(self, vector: Vectors, depth: int) -> QueryRequest:
        """The search by dense vector."""
        return QueryRequest(query=vector.tolist(), using=self.vector, limit=depth)

    def passage(self, found: ScoredPoint) -> Passage | None:
        """The passage of a search result, cleaned as in an ingest; a long text is cut at a word.

        None for a point without a text.
        """
        payload = found.payload or {}
        text, metadata = self.layout.text(payload), self.layout.metadata(payload)
        if not isinstance(text, str):
            return None
        tidy = cleaned(_shortened(text, READ))
        if len(tidy) > LONGEST:
            tidy = _CUT_WORD.sub("", tidy[:LONGEST])
        file_name = PurePosixPath(_label(metadata, "file_path").replace("\\", "/")).name
        tags = metadata.get("tags")
        known = tags if isinstance(tags, list) else [tags]
        try:
            whole = Text(
                text=tidy,
                title=_label(metadata, "title", "file_name") or file_name,
                source=_label(metadata, "source", "file_path", "url", "file_name"),
                license=_label(metadata, "license"),
                tags=tuple(_shortened(tag, LABEL) for tag in known[:TAGS] if isinstance(tag, str)),
            )
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
    """Check that a collection matches its description in the profile.

    Raises JobError if it does not, Unavailable and ConfigError.
    """
    try:
        with calling(client):
            params = client.get_collection(collection).config.params.vectors
    except (UnexpectedResponse, ValueError) as error:
        raise JobError(
            f"There is no collection {collection!r}, which the profile says {written.written_by} "
            "wrote."
        ) from error
    vectors = params if isinstance(params, dict) else {"": params} if params else {}
    layout = LAYOUTS[written.written_by]
    names = (written.vector,) if written.vector else layout.vectors
    name = next((each for each in names if each in vectors), None)
    if name is None:
        raise JobError(
            f"Collection {collection!r} has no dense vector {_listed(names)}; there are: "
            f"{_listed(vectors)}. Name one in retrieval.collections.{collection}.vector."
        )
    vector = vectors[name]
    if vector.multivector_config:
        raise JobError(f"Collection {collection!r} has several vectors for each text.")
    if vector.size != embedder.size:
        raise JobError(
            f"Collection {collection!r} has vectors of {vector.size} components, and "
            f"{embedder.name} gives {embedder.size}; name the embedding that made it in "
            f"retrieval.collections.{collection}.embedding."
        )
    return ExternalCollection(layout, embedder, name)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name or "(unnamed)" for name in names) or "none"


def _label(metadata: Payload, *names: str) -> str:
    """The first non-empty text among these fields, cut to LABEL; empty if there is none."""
    said = (metadata.get(name) for name in names)
    return next((_shortened(each, LABEL) for each in said if isinstance(each, str) and each), "")


def _shortened(text: str, longest: int) -> str:
    return well_formed(text[:longest])
