"""A job file's sheet, encoding and names of columns, in a file beside it."""

import codecs
import io
import json
import tomllib
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, field_validator

from pipeline.errors import ConfigError, JobFileError
from pipeline.job import FrozenModel
from pipeline.jobfile.columns import LEFT_OUT, is_own_name
from pipeline.jobfile.rows import suffix_of
from pipeline.jobfile.values import shown
from pipeline.options import COLUMNS
from pipeline.profile import first_problem

SUFFIX = ".columns.toml"
LIMIT = 64 * 1024
"""Bytes of the file."""
_WORKBOOKS = (".xlsx", ".xlsm")


class Reading(FrozenModel):
    """The way to read a job file NAME, from NAME.columns.toml beside it."""

    sheet: str = Field(default="", description="the workbook's sheet; empty: its only one")
    encoding: str = Field(default="", description="of a text file; empty: its mark's, else UTF-8")
    columns: dict[str, str] = Field(
        default_factory=dict, description="our columns by the file's names; empty: it is left out"
    )

    @field_validator("encoding")
    @classmethod
    def _text_encoding(cls, name: str) -> str:
        try:
            if name:
                io.TextIOWrapper(io.BytesIO(), encoding=codecs.lookup(name).name)
        except (LookupError, ValueError):
            raise ValueError(
                f"{shown(name)} is no encoding; cp1252 is that of Excel's plain CSV in the west"
            ) from None
        return name

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        for column in columns.values():
            if column not in (*COLUMNS, LEFT_OUT) and not is_own_name(column):
                known = ", ".join(COLUMNS)
                raise ValueError(
                    f"{shown(column)} is no column: of {known}; meta.NAME; or nothing, which "
                    "leaves it out"
                )
        return {name.strip(): column for name, column in columns.items()}

    @classmethod
    def beside(cls, path: Path) -> Self:
        """The reading that the file beside a job file names; the usual one if there is none. Raises
        JobFileError.
        """
        place = path.with_name(path.name + SUFFIX)
        try:
            with place.open("rb") as file:
                data = file.read(LIMIT + 1)
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise JobFileError(f"{place}: {error.strerror}.") from error
        if len(data) > LIMIT:
            raise JobFileError(f"{place} is longer than {LIMIT // 1024} KB.")
        try:
            reading = cls.model_validate(tomllib.loads(data.decode()))
        except ValidationError as error:
            raise JobFileError(f"{place}: {first_problem(error)}") from error
        except (ValueError, RecursionError) as error:
            raise JobFileError(f"{place}: {error}") from error
        if reason := reading.without_effect(path):
            raise JobFileError(f"{place}: {reason}")
        return reading

    def without_effect(self, path: Path) -> str:
        """The reason to refuse a sheet or an encoding for a file of this format; empty if there is
        none.
        """
        suffix = suffix_of(path)
        if self.sheet and suffix not in _WORKBOOKS:
            return f"sheet is for workbooks, .xlsx or .xlsm, and {path.name} is none; leave it out."
        if self.encoding and suffix in (*_WORKBOOKS, ".parquet"):
            return f"encoding is for text files, and {path.name} is none; leave it out."
        return ""

    def toml(self) -> str:
        """The file that says this."""
        said = [("sheet", self.sheet), ("encoding", self.encoding)]
        lines = [f"{name} = {_quoted(value)}" for name, value in said if value]
        if self.columns:
            pairs = self.columns.items()
            lines += ["[columns]", *(f"{_quoted(name)} = {_quoted(ours)}" for name, ours in pairs)]
        return "\n".join([*lines, ""])


def reading_of(sheet: str, encoding: str, pairs: list[str], before: Reading) -> Reading:
    """A reading as options say it, over one from before. Raises ConfigError."""
    columns = dict(before.columns)
    for pair in pairs:
        name, equals, column = pair.rpartition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--map {shown(pair)}: write it as NAME=COLUMN.")
        columns[name.strip()] = column.strip()
    try:
        return Reading(
            sheet=sheet or before.sheet, encoding=encoding or before.encoding, columns=columns
        )
    except ValidationError as error:
        raise ConfigError(str(first_problem(error))) from error


def _quoted(text: str) -> str:
    """A string in TOML, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
