"""Model references and their folders, without torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pipeline.errors import ModelError
from pipeline.models.hub import fetch
from pipeline.profile import Profile

Given = TypeVar("Given")
Made = TypeVar("Made")


def resolve(reference: str, root: Path, role: str) -> Path:
    """The folder of a model: one under `root`, any existing path, or else fetched from the hub.

    A hub id is `org/name` or `org/name@revision`. Raises ModelError with the command to fetch it.
    """
    for folder in (root / reference, Path(reference).expanduser()):
        if reference and folder.is_dir():
            return folder
    return fetch(reference, root, role)


def references(profile: Profile) -> dict[str, str]:
    """Role to reference of each model that a profile runs in this process.

    A role may name its collection after a colon.
    """
    named: dict[str, str] = {"judge": profile.judge.model}
    if profile.writer.kind == "local":
        named["writer"] = profile.writer.model
    renderer = profile.renderer
    if renderer.kind == "diffusers":
        extras = {
            "unet": renderer.unet,
            "previews": renderer.previews,
            "image_adapter": renderer.image_adapter,
        }
        named["renderer"] = renderer.model
        named |= {role: reference for role, reference in extras.items() if reference}
    if profile.retrieval.embedding != "hashed":
        named["embedding"] = profile.retrieval.embedding
    if profile.retrieval.image_encoder:
        named["image_encoder"] = profile.retrieval.image_encoder
    for collection, theirs in profile.retrieval.collections.items():
        if theirs.embedding not in ("", "hashed"):
            named[f"embedding:{collection}"] = theirs.embedding
    return named


def role_folders(profile: Profile, root: Path) -> dict[str, Path]:
    """The folder of each model that a profile runs in this process. Raises ModelError."""
    return for_each_role(references(profile), lambda role, name: resolve(name, root, role))


def for_each_role(given: Mapping[str, Given], do: Callable[[str, Given], Made]) -> dict[str, Made]:
    """Map `do` over the roles. Raises one ModelError for all that fail."""
    made, wrong = dict[str, Made](), list[str]()
    for role, value in given.items():
        try:
            made[role] = do(role, value)
        except ModelError as error:
            wrong.append(f"{role}: {error.detail}")
    if wrong:
        raise ModelError("\n".join(wrong))
    return made


def variant(profile: Profile, role: str) -> str:
    """The weights' variant that a profile names for a role's model."""
    renderer = profile.renderer
    return renderer.variant if role == "renderer" and renderer.kind == "diffusers" else ""
