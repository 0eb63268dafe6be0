"""The settings of a job and their setters, derived from the fields of `Job` that are `Settable`."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, get_args

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from pipeline import job
from pipeline.job import FrozenModel, InputImage, Job, Settable, Setter


def settable(by: Setter) -> dict[str, tuple[FieldInfo, Settable]]:
    """The fields of a job that a setter may set, by name and in the job's order."""
    marked = (
        (name, field, mark)
        for name, field in Job.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Settable)
    )
    return {name: (field, mark) for name, field, mark in marked if by in mark.by}


COLUMNS: dict[str, tuple[str, FieldInfo, Settable]] = {
    mark.column or name: (name, field, mark) for name, (field, mark) in settable("row").items()
}
"""The columns of a job file but `meta.*`, each with its field of a job: name, field and mark."""


INPUTS = [
    name for name, (_, field, _) in COLUMNS.items() if InputImage in get_args(field.annotation)
]
"""The columns that name images."""


def settings_by(
    setter: Setter, *, defaults: bool = False, without: Collection[str] = ()
) -> type[FrozenModel]:
    """A model of all that a setter may set but for `without`, with the bounds and descriptions of
    `Job`: with `defaults` at a profile's defaults, else None unless they are given.
    """
    fields = dict[str, Any]()
    for name, (field, mark) in settable(setter).items():
        if name in without:
            continue
        default = mark.default if defaults else None
        bounded: Any = Annotated[(field.annotation, *field.metadata)]
        kind = bounded | None if default is None else bounded
        fields[name] = (kind, Field(default, description=field.description))
    return create_model(f"SettingsBy{setter.title()}", __base__=FrozenModel, **fields)


def message(problem: Mapping[str, Any]) -> str:
    """The message of a validation's error, in plain words where pydantic's is a pattern."""
    if problem["type"] == "string_pattern_mismatch":
        match problem["ctx"]["pattern"]:
            case job.PLAIN_NAME:
                allowed = "begins with a letter or digit and has at most 100 of A-Z a-z 0-9 _ . -"
                return f"Input is no plain name, which {allowed}; no path and no address"
            case job.FILE_NAME:
                return "Input is no name of a file without its suffix; it may not be a path"
    said: str = problem["msg"]
    return said.removeprefix("Value error, ")
