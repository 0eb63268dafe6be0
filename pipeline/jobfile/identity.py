"""Equal work has an equal id; what changes the result changes the id."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import JobFileError
from pipeline.job import digest_of
from pipeline.profile import Profile

_ASIDE = frozenset({"id", "row", "priority"})
_NO_EFFECT = frozenset({"name", "defaults", "batch", "timeout", "allowed"})
_NAMED = "collections"
"""Its keys are names of the user's own, whatever they are."""


def job_id(fields: Mapping[str, Any], profile: str) -> str:
    """The id of a job with these fields under a profile's digest.

    Where the row stands and how urgent it is don't belong to it.
    """
    return digest_of([{k: v for k, v in fields.items() if k not in _ASIDE}, profile])


def row_digest(given: Mapping[str, Any]) -> str:
    """A digest of what a row says, whatever its place: it decides wildcards and the seed.

    It knows nothing of the profile or the command line, so that two runs of one file under
    different settings differ in the settings alone.
    """
    return digest_of({k: v for k, v in given.items() if k != "priority"})


def profile_digest(profile: Profile) -> str:
    """A digest of what in a profile changes results: not its name, batch sizes, time limits or what
    rows may ask.

    The defaults for rows count where they are used: in each job's own fields.
    """
    return digest_of(_effective(profile.model_dump(mode="json")))


def _effective(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _effective(value) if isinstance(value, dict) and key != _NAMED else value
        for key, value in table.items()
        if key not in _NO_EFFECT
    }


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hex. Raises JobFileError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}.") from error
