"""Identities of jobs: equal work has an equal id, and every setting with an effect changes it."""

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
"""A table whose keys are the user's own names, not settings."""


def job_id(fields: Mapping[str, Any], profile: str) -> str:
    """The id of a job with these fields under a profile's digest.

    Leaves out the row number and the priority.
    """
    return digest_of([{k: v for k, v in fields.items() if k not in _ASIDE}, profile])


def row_digest(given: Mapping[str, Any]) -> str:
    """A digest of a row's own values, which decides its choices and its seed.

    Independent of the row number, the profile and the command line, so that two runs of one file
    under different settings differ in the settings alone.
    """
    return digest_of({k: v for k, v in given.items() if k != "priority"})


def profile_digest(profile: Profile) -> str:
    """A digest of the settings of a profile that change results: without its name, batch sizes,
    time limits and allowed collections.

    The defaults for rows are left out too: they are in each job's own fields.
    """
    return digest_of(_effective(profile.model_dump(mode="json")))


def _effective(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _effective(value) if isinstance(value, dict) and key != _NAMED else value
        for key, value in table.items()
        if key not in _NO_EFFECT
    }


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hex. Raises JobFileError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}.") from error
