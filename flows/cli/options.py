"""The options of the commands, and their values for the flows."""

import inspect
from collections.abc import Callable, Collection
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import Ge, Le
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.options import message, settable

if TYPE_CHECKING:
    from pipeline.record import Status

JobFile = Annotated[
    str,
    typer.Argument(
        help="File of keyword jobs (xlsx, CSV, JSON, Parquet), s3:// address, or - (stdin)."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
RunName = Annotated[str, typer.Argument(help="The run's name.")]
Retry = Annotated[str, typer.Option(help="Do again what ended so, with commas between; or none.")]
FailOn = Annotated[
    str,
    typer.Option(help="End with exit code 5 where rows have such an outcome (comma-separated)."),
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Go on with a run of another file or profile unasked.")
]
Store = Annotated[str | None, typer.Option(help="A folder, or s3://bucket/prefix.")]
ProfileName = Annotated[str | None, typer.Option(help="A profile's name, or a TOML file.")]
Devices = Annotated[
    str | None,
    typer.Option(help="all, cpu, or CUDA numbers such as 0,1. Default: PRESSRUN_DEVICE, else all."),
]
BudgetSeconds = Annotated[
    float | None,
    typer.Option(
        "--budget-gpu-seconds",
        help="Device seconds this command may use; the rest is left for `resume`.",
        min=0.0,
    ),
]
Quota = Annotated[
    int | None,
    typer.Option(
        help="Accepted images that the run shall have; the rest is left for `resume`.", min=0
    ),
]
NoRetrieval = Annotated[bool, typer.Option("--no-retrieval", help="Retrieve nothing.")]


def takes_overrides(
    *, without: Collection[str] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, in place of its parameter `overrides`, an option for each setting of a job
    that a run may set, but for those in `without`; and --no-retrieval.
    """
    options = {
        name: _option(name, defaults.get(name)) for name in settable("run") if name not in without
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_options(no_retrieval: bool, **given: Any) -> None:
            from pipeline.jobfile.builder import Overrides

            said = {name: given.pop(name) for name in options}
            try:
                overrides = Overrides(**said, retrieval=not no_retrieval)
            except ValidationError as error:
                problem = error.errors()[0]
                option = str(problem["loc"][0]).replace("_", "-")
                raise ConfigError(f"--{option}: {message(problem)}") from error
            command(overrides=overrides, **given)

        own = inspect.signature(command).parameters
        parameters = list[inspect.Parameter]()
        for name, parameter in own.items():
            if name == "overrides":
                no_retrieval = inspect.Parameter(
                    "no_retrieval", parameter.kind, default=False, annotation=NoRetrieval
                )
                parameters += [*options.values(), no_retrieval]
            else:
                parameters.append(parameter)
        # typer reads both; a function has the attribute, though its type does not declare it
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {each.name: each.annotation for each in parameters}
        return with_options

    return decorate


def _option(name: str, default: Any) -> inspect.Parameter:
    """A command's option for a setting of a job, with its help and bounds."""
    field, _ = settable("run")[name]
    kind: Any = field.annotation
    about, bounds = field.description or "", dict[str, Any]()
    for bound in field.metadata:
        if isinstance(bound, Ge):
            bounds["min"] = bound.ge
        elif isinstance(bound, Le):
            bounds["max"] = bound.le
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=f"{about[:1].upper()}{about[1:]}, for rows that set none.",
        **bounds,
    )
    annotation: Any = Annotated[(kind | None, option)]
    return inspect.Parameter(
        name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation
    )


def statuses_of(names: str, option: str = "--retry") -> "list[Status]":
    """The statuses that an option names. Raises ConfigError."""
    from pipeline.record import Status

    try:
        return [Status(name.strip()) for name in names.split(",") if name.strip() != "none"]
    except ValueError:
        known = ", ".join(Status)
        raise ConfigError(f"{option} {names!r}: of {known}, with commas between; or none") from None
