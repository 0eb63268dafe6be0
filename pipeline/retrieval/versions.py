"""A collection's name stands for one of its versions: a new one takes the place of the old at once.

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
"""No collection's own name holds it."""


def names(client: QdrantClient) -> list[str]:
    """All names that can be asked, sorted: of other tools' collections their own.

    Raises Unavailable and ConfigError.
    """
    with calling(client):
        plain = {name for name in _collections(client) if MARK not in name}
        return sorted(plain | _aliases(client).keys())


def open_version(client: QdrantClient, name: str, embedders: Embedders, *, anew: bool) -> str:
    """What an ingest is to write into: the version that the name stands for, made where there is
    none; `anew` one beside it, which may be what an interrupted ingest left.

    Raises KnowledgeError for a collection that another tool made.
    """
    standing = _aliases(client).get(name, "")
    if not standing and name in _collections(client):
        if anew:
            raise KnowledgeError(
                f"Collection {name!r} was not made by `pressrun ingest`, which cannot replace it."
            )
        return name
    if standing and not anew:
        return standing
    begun = [each for each in _versions(client, name) if each != standing]
    for version in begun:
        if not schema.mismatch(client, version, embedders):
            break
        client.delete_collection(version)
    else:
        version = f"{name}{MARK}{_number(standing) + 1}"
        schema.create(client, version, embedders)
    if not standing and not anew:
        stand_for(client, name, version)
    return version


def stand_for(client: QdrantClient, name: str, version: str) -> None:
    """Have the name stand for a version from now on, and remove every other one."""
    standing = _aliases(client).get(name)
    if standing != version:
        gone = DeleteAliasOperation(delete_alias=DeleteAlias(alias_name=name))
        new = CreateAlias(collection_name=version, alias_name=name)
        operations = [gone] if standing else []
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


def _number(version: str) -> int:
    number = version.rpartition(MARK)[2]
    return int(number) if number.isdecimal() else 0
