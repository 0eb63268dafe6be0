"""Model references and their folders or files, without torch: local ones, or snapshots of hub
models.

From the hub come safetensors and configurations, never code.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TypeVar

from pipeline.errors import ModelError
from pipeline.models.contents import OPEN_CLIP_CONFIG
from pipeline.models.refusals import STEMS
from pipeline.profile import Profile

Given = TypeVar("Given")
Made = TypeVar("Made")

TEXTS = ("*.json", "*.txt", "*.model", "*.jinja")
WEIGHTS = {
    # their folders hold the same weights in the names of transformers as well
    "judge": ("open_clip*.safetensors",),
    "image_encoder": ("open_clip*.safetensors",),
    "concept": ("open_clip*.safetensors",),
}
UNUSED = ["*.non_ema.*"]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}$")


def resolve(reference: str, root: Path, role: str, variant: str = "") -> Path:
    """The folder of a model, or its single file: one under `root`, any existing path, or else
    fetched from the hub in one variant.

    A hub id is `org/name` or `org/name@revision`. Raises ModelError with the command to fetch it.
    """
    return local_model(reference, root) or fetch(reference, root, role, variant)


def local_model(reference: str, root: Path) -> Path | None:
    """The folder or file of a reference under `root`, or any existing path; None where there is
    none.
    """
    files = (path for path in _places(reference, root) if path.is_file())
    return local_folder(reference, root) or next(files, None)


def local_folder(reference: str, root: Path) -> Path | None:
    """The folder of a reference under `root`, or any existing path; None where there is none. In a
    folder of the hub's cache that is its snapshot.
    """
    return next((_snapshot(path) for path in _places(reference, root) if path.is_dir()), None)


def _places(reference: str, root: Path) -> list[Path]:
    if not reference:
        return []
    name, _, revision = reference.partition("@")
    cached = root / f"models--{name.replace('/', '--')}"
    snapshot = _snapshot(cached, revision or "main")
    found = [snapshot] if snapshot != cached else []
    return [root / reference, Path(reference).expanduser(), *found]


def _snapshot(folder: Path, revision: str = "main") -> Path:
    """The files of a revision in a folder of the hub's cache; another folder is its own."""
    ref = folder / "refs" / revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    found = folder / "snapshots" / commit
    return found if found.is_dir() else folder


def fetch(reference: str, root: Path, role: str, variant: str = "") -> Path:
    """The local snapshot of hub model `org/name[@revision]`, downloaded if it is not cached.

    Of a pipeline come the weights of one variant, and for parts without it those that they have.
    Raises ModelError with the command that fetches it by hand.
    """
    from httpx2 import HTTPError
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = reference.partition("@")
    if not HUB_ID.fullmatch(name):
        known = HUB_ID.search(name) if ":" in name else None
        hub_id = f"a hub id, here {known[0]}" if known else "a hub id such as org/name"
        raise ModelError(
            f"there is no folder or file {reference!r}, neither in {root} nor here: name one in "
            f"PRESSRUN_MODELS, any path, or {hub_id}"
        )
    role = role.partition(":")[0]
    patterns = [*TEXTS, *_weights(role, variant)]

    def get(wanted: list[str]) -> Path:
        return Path(
            snapshot_download(
                name, revision=revision or None, allow_patterns=wanted, ignore_patterns=UNUSED
            )
        )

    try:
        snapshot = get(patterns)
        if role in WEIGHTS and not (snapshot / OPEN_CLIP_CONFIG).is_file():
            return get(["model*.safetensors"])
        configured = snapshot.glob("*/config.json") if role == "renderer" else ()
        bare = [each.parent for each in configured if not any(each.parent.glob("*.safetensors"))]
        return get([f"{part.name}/*.safetensors" for part in bare]) if bare else snapshot
    except (HFValidationError, HTTPError, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if isinstance(error, OSError) and error.errno:
            raise ModelError(
                f"{reference!r} does not go into the hub's cache, {constants.HF_HUB_CACHE} "
                f"({reason}): make room there, or have HF_HOME name another folder."
            ) from error
        raise ModelError(
            f"{reference!r} is not in {root}, and the hub did not give it ({reason}). "
            f"By hand: {command(reference, root, patterns)}"
        ) from error


def _weights(role: str, variant: str) -> Sequence[str]:
    if role != "renderer":
        return WEIGHTS.get(role, ("*.safetensors",))
    tag = f".{variant}" if variant else ""
    return [f"*/{stem}{tag}{end}.safetensors" for stem in STEMS for end in ("", "-*-of-*")]


def command(reference: str, root: Path, patterns: list[str]) -> str:
    """The command line that downloads a hub model to the folder of its reference."""
    name, _, revision = reference.partition("@")
    pinned = f" --revision {revision}" if revision else ""
    include = " ".join(f"--include '{pattern}'" for pattern in patterns)
    return f"hf download {name}{pinned} {include} --local-dir {quote(str(root / reference))}"


def references(profile: Profile) -> dict[str, str]:
    """Role to reference of each model that a profile runs in this process.

    A role may name its collection, its guard, its ControlNet or its renderer among several, after a
    colon; the roles of the judges behind the first end in two colons and the judge's name.
    """
    named = profile.judge[0].models() | profile.retrieval.models()
    for judge in profile.judge[1:]:
        named |= {f"{role}::{judge.name}": each for role, each in judge.models().items()}
    for guard in profile.guard:
        named |= guard.models()
    if profile.writer.kind == "local":
        named["writer"] = profile.writer.model
    named |= profile.renderer.models()
    for name, renderer in profile.renderers.items():
        named |= {f"{role}:{name}": each for role, each in renderer.models().items()}
    return named


def digests_of(profile: Profile, model: str, digests: Mapping[str, str]) -> dict[str, str]:
    """Role to digest, out of a run's `digests`, of the models that jobs of one renderer use."""
    own = profile.of(model)
    named = own.renderer.models() if model else {}
    keys = {role: f"{role}:{model}" if role in named else role for role in references(own)}
    return {role: digests[key] for role, key in keys.items() if key in digests}


def role_folders(profile: Profile, root: Path) -> dict[str, Path]:
    """The folder of each model that a profile runs in this process. Raises ModelError."""
    return for_each_role(
        references(profile), lambda role, name: resolve(name, root, role, variant(profile, role))
    )


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
    role, _, name = role.partition(":")
    renderer = profile.renderers[name] if name and role == "renderer" else profile.renderer
    return renderer.variant if role == "renderer" and renderer.kind == "diffusers" else ""
