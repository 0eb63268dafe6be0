"""Versions of a collection: a new one replaces the old one atomically.

In Qdrant a version is a collection, `NAME@1` and so on, and the name an alias of it.
"""

from qdrant_client import QdrantClient
from qdrant_client.models import (
    CreateAlias,
    CreateAliasOperation,
    DeleteAlias,
    DeleteAliasOperation,
)

from pipeline.errors import KnowledgeError
from pipeline.retrieval import schema
from pipeline.retrieval.client import calling
from pipeline.retrieval.embedders import Embedders

MARK = "@"
"""Separates name and version number; never part of a collection's name."""


def names(client: QdrantClient) -> list[str]:
    """The names of all collections that can be searched, sorted; external ones have no versions.

    Raises Unavailable and ConfigError.
    """
    with calling(client):
        plain = {name for name in _collections(client) if MARK not in name}
        return sorted(plain | _aliases(client).keys())


def open_version(client: QdrantClient, name: str, embedders: Embedders, *, anew: bool) -> str:
    """The Qdrant collection to write to: the alias's current target, created if missing; with
    `anew` a new version beside it, where an interrupted ingest is resumed.

    Raises KnowledgeError for an external collection that `anew` would replace.
    """
    current = _aliases(client).get(name, "")
    if not current and name in _collections(client):
        if anew:
            raise KnowledgeError(
                f"Collection {name!r} was not made by `pressrun ingest`, which cannot replace it."
            )
        return name
    if current and not anew:
        return current
    unfinished = [each for each in _versions(client, name) if each != current]
    for version in unfinished:
        if not schema.mismatch(client, version, embedders):
            break
        client.delete_collection(version)
    else:
        number = current.rpartition(MARK)[2]
        version = f"{name}{MARK}{int(number) + 1 if number.isdecimal() else 1}"
        schema.create(client, version, embedders)
    if not current and not anew:
        switch_to(client, name, version)
    return version


def switch_to(client: QdrantClient, name: str, version: str) -> None:
    """Point the name's alias at a version, and delete every other version."""
    current = _aliases(client).get(name)
    if current != version:
        # one request: no search finds the name without a target
        old = DeleteAliasOperation(delete_alias=DeleteAlias(alias_name=name))
        new = CreateAlias(collection_name=version, alias_name=name)
        operations = [old] if current else []
        client.update_collection_aliases([*operations, CreateAliasOperation(create_alias=new)])
    for other in _versions(client, name):
        if other != version:
            client.delete_collection(other)


def _collections(client: QdrantClient) -> list[str]:
    return [entry.name for entry in client.get_collections().collections]


def _aliases(client: QdrantClient) -> dict[str, str]:
    return {each.alias_name: each.collection_name for each in client.get_aliases().aliases}


def _versions(client: QdrantClient, name: str) -> list[str]:
    return sorted(each for each in _collections(client) if each.startswith(f"{name}{MARK}"))
