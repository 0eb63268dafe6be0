"""Identities of jobs: equal work has an equal id, and every setting with an effect changes it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from pipeline.errors import JobFileError
from pipeline.job import canonical_json, digest_of, digest_of_json
from pipeline.jobfile.reading import Reading
from pipeline.profile import Profile

_ASIDE = frozenset({"id", "row", "priority", "model"})
_NO_EFFECT = frozenset(
    {"name", "defaults", "batch", "timeout", "at_once", "allowed", "renderers", "offload", "band"}
)
_NAMED = frozenset({"collections", "controls", "image_adapter", "scheduler_settings"})
"""Tables whose keys are the user's own names, not settings."""


class JobIds:
    """The ids of jobs under a profile with one renderer. The JSON of the fields' defaults, which
    most rows keep, is made once.
    """

    def __init__(self, profile: Profile, defaults: Mapping[str, Any]) -> None:
        self._defaults, self._end = defaults, f"}},{canonical_json(profile_digest(profile))}]"
        self._known = {
            name: _entry(name, to_jsonable_python(value))
            for name, value in defaults.items()
            if name not in _ASIDE
        }

    def of(self, fields: Mapping[str, Any]) -> str:
        """The id of a job with these fields. Leaves out the row number, the priority and the name
        of the model, which is in the profile as its renderer.
        """
        own = {
            name: _entry(name, value)
            for name, value in fields.items()
            if value is not self._defaults.get(name, self) and name not in _ASIDE
        }
        entries = self._known | own
        document = ",".join([entries[name] for name in sorted(entries)])
        return digest_of_json(f"[{{{document}{self._end}")


def _entry(name: str, value: Any) -> str:
    # an encoder for one integer takes as long as all the rest
    return f'"{name}":{value if type(value) is int else canonical_json(value)}'


def row_digest(given: Mapping[str, Any]) -> str:
    """A digest of a row's own values, which decides its choices and its seed.

    Independent of the row number, the model, the profile and the command line, so that two runs of
    one file under different settings, and two rows of different models, differ in these alone.
    """
    return digest_of({k: v for k, v in given.items() if k not in ("priority", "model")})


def profile_digest(profile: Profile) -> str:
    """A digest of the settings of a profile that change results: without its name, batch sizes,
    calls at once, offloading, time limits, allowed collections and the renderers of other jobs.

    The defaults for rows are left out too: they are in each job's own fields. Names of judges and
    guards are left out but for guards that rewrite, whose name the writer is told.
    """
    return digest_of(_effective(profile.model_dump(mode="json")))


def _effective(value: Any) -> Any:
    if isinstance(value, list):
        return [_effective(each) for each in value]
    if not isinstance(value, dict):
        return value
    aside = _NO_EFFECT - {"name"} if value.get("action") == "rewrite" else _NO_EFFECT
    return {
        key: each if key in _NAMED else _effective(each)
        for key, each in value.items()
        if key not in aside
    }


def file_digest(path: Path) -> str:
    """The sha256 of a job file, in hex, and of how the file beside it says to read it. Raises
    JobFileError if one of them cannot be read.
    """
    reading = Reading.beside(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        if reading != Reading():
            digest.update(reading.toml().encode())
        return digest.hexdigest()
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}.") from error
