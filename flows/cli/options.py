"""The options of the commands, and their values for the flows."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.job import Status
    from pipeline.jobfile.reader import Overrides

JobFile = Annotated[
    str,
    typer.Argument(help="CSV, JSONL or Parquet file of keyword jobs, s3:// address, or - (stdin)."),
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
Collection = Annotated[str | None, typer.Option(help="Knowledge for rows that name none.")]
ProfileName = Annotated[str | None, typer.Option(help="A profile's name, or a TOML file.")]
Candidates = Annotated[int | None, typer.Option(help="For rows that say nothing.", min=1, max=64)]
Threshold = Annotated[float | None, typer.Option(help="Gate, 0 to 1.", min=0.0, max=1.0)]
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
NoRetrieval = Annotated[bool, typer.Option("--no-retrieval", help="Retrieve nothing.")]


def overrides_of(
    candidates: int | None, threshold: float | None, collection: str | None, no_retrieval: bool
) -> "Overrides":
    """The overrides of a profile's defaults by these options."""
    from pipeline.jobfile.reader import Overrides

    return Overrides(
        candidates=candidates,
        threshold=threshold,
        collection=collection,
        retrieval=not no_retrieval,
    )


def statuses_of(names: str, option: str = "--retry") -> "list[Status]":
    """The statuses that an option names. Raises ConfigError."""
    from pipeline.job import Status

    try:
        return [Status(name.strip()) for name in names.split(",") if name.strip() != "none"]
    except ValueError:
        known = ", ".join(Status)
        raise ConfigError(f"{option} {names!r}: of {known}, with commas between; or none") from None
