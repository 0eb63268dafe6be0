"""The files of an inbox: names, states, the claim on a file, and its options."""

import hashlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from pipeline.errors import ConfigError
from pipeline.job import FrozenModel
from pipeline.jobfile.rows import suffix_of
from pipeline.options import settings_by
from pipeline.profile import first_problem

LONGEST_NAME = 200
"""Bytes of a file's name; the summary beside it has a longer one."""
OPTIONS: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}
"""The parsers of files of options, by suffix."""
_SHOWN = 60


class State(StrEnum):
    """The state of a file: NEW at the top of the inbox, else in the folder of that name."""

    NEW = "new"
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"


TRANSITIONS = {
    (State.NEW, State.WORKING): "its content is claimed, and no other file of its run is in work",
    (State.NEW, State.DONE): "the same content was done before",
    (State.NEW, State.FAILED): "its name, its kind or its options are refused",
    (State.WORKING, State.NEW): "its claim was removed",
    (State.WORKING, State.DONE): "its flow run has completed",
    (State.WORKING, State.FAILED): "its flow run has failed, crashed or was cancelled",
}
"""The changes of state that there are, and the reason for each. DONE and FAILED are final."""


@dataclass(frozen=True)
class InboxFile:
    """A job file, its run once that is known, and the files beside it, if any, with its options
    and with how it is read.

    `digest` is that of its claim, which names its folder while it is WORKING.
    """

    name: str
    sidecar: str = ""
    run: str = ""
    state: State = State.NEW
    digest: str = ""
    columns: str = ""

    @property
    def folder(self) -> str:
        """The prefix of its keys while it is NEW or WORKING."""
        return f"{State.WORKING}/{self.digest}/" if self.state is State.WORKING else ""

    @property
    def names(self) -> list[str]:
        """Its name, and those of the files beside it."""
        return [name for name in (self.name, self.sidecar, self.columns) if name]

    def to(self, state: State) -> Self:
        """The file in another state. Raises ValueError for a change that TRANSITIONS has not."""
        if (self.state, state) not in TRANSITIONS:
            raise ValueError(f"{self.name} cannot go from {self.state} to {state}")
        return replace(self, state=state)


class Options(settings_by("run")):  # type: ignore[misc]  # a computed base
    """The options of a job file NAME.csv, from a file NAME.toml or NAME.json beside it."""

    run: str = Field(default="", description="the run's name; empty: the job file's own")
    profile: str | None = None


def read_options(name: str, data: bytes) -> Options:
    """The options in a file of this name. Raises ConfigError."""
    try:
        options: Options = Options.model_validate(OPTIONS[suffix_of(Path(name))](data.decode()))
    except ValidationError as error:
        raise ConfigError(f"{name}: {first_problem(error)}") from error
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: it is nested too deep") from error
    return options


class Claim(FrozenModel):
    """The claim on some content, stored once: every file with this content is one run's."""

    name: str
    beside: str = Field(default="", description="the file with its options, if there is one")
    columns: str = Field(default="", description="the file with how it is read, if there is one")
    options: Options
    digest: str = Field(description="of the job file, how it is read, and its options")
    run: str
    token: str = Field(description="under which Prefect starts one flow run")
    settled: bool = Field(default=False, description="the run was finished")

    @property
    def key(self) -> str:
        """The key of the claim itself."""
        return f"claimed/{self.digest}.json"

    @property
    def file(self) -> InboxFile:
        """The claimed file while its run is in work."""
        return InboxFile(self.name, self.beside, self.run, State.WORKING, self.digest, self.columns)


def wrong_name(name: str) -> str:
    """The reason to refuse a file of this name; empty if there is none."""
    if not name.isprintable() or "\\" in name:
        return "its name holds a backslash, a control character or what is not UTF-8; rename it"
    if len(name.encode()) > LONGEST_NAME:
        return f"its name is longer than {LONGEST_NAME} bytes; rename it"
    return ""


def safe_name(name: str) -> str:
    """The name itself, or a short unique one that every store accepts."""
    if not wrong_name(name):
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
    plain = re.sub(r"[^A-Za-z0-9._ -]+", "-", Path(name).stem)[:_SHOWN].strip(". ")
    return f"{plain or 'file'}-{digest}{suffix_of(Path(name))}"


def strays(folder: Path, suffixes: Collection[str]) -> Iterator[tuple[str, str]]:
    """The names with one of these suffixes that are refused, each with the reason."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if suffix_of(Path(entry.name)) in suffixes]
    for entry in found:
        mode = entry.stat(follow_symlinks=False).st_mode
        if entry.name.startswith(".") or stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            yield entry.name, "it is a link, a pipe or a device, not a file"
        elif not os.access(entry.path, os.R_OK):
            yield entry.name, "it cannot be read; give it other rights"
        elif reason := wrong_name(entry.name):
            yield entry.name, reason
