"""The command line. Heavy imports are inside the commands: `--help` and `check` import no torch."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console

from pipeline.errors import ConfigError, PressrunError

if TYPE_CHECKING:
    from pipeline.intake.reader import Overrides
    from pipeline.job import Verdict

FAILED_ROWS = 3
OUT_OF_BUDGET = 4
INTERRUPTED = 130

app = typer.Typer(
    name="pressrun",
    help="Bulk image generation: one outcome per row, one receipt per picture.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
calibrate = typer.Typer(help="Measure on this model what a setting may be.", no_args_is_help=True)
app.add_typer(calibrate, name="calibrate")
console = Console(stderr=True)

JobFile = Annotated[Path, typer.Argument(help="CSV, JSONL or Parquet file of keyword jobs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
RunName = Annotated[str, typer.Argument(help="The run's name.")]
Retry = Annotated[str, typer.Option(help="Do again what ended so, with commas between; or none.")]
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


@app.command()
def run(
    jobs: JobFile,
    run: Annotated[str | None, typer.Option("--run", help="Name; default: the file's.")] = None,
    collection: Collection = None,
    candidates: Candidates = None,
    threshold: Threshold = None,
    no_retrieval: NoRetrieval = False,
    store: Store = None,
    retry: Retry = "failed",
    budget: BudgetSeconds = None,
    profile: ProfileName = None,
    as_json: Json = False,
) -> None:
    """Turn a job file into judged pictures. The same file again does only what is left."""
    from flows.batch import run_batch
    from flows.opening import run_name
    from pipeline.settings import load_settings

    overrides = _overrides(candidates, threshold, collection, no_retrieval)
    settings = load_settings(store=store, profile=profile)
    with _interruptible(_resumable(run or run_name(jobs))):
        _end(run_batch(jobs, run, overrides, _verdicts(retry), settings, budget), as_json)


@app.command()
def resume(
    run: RunName,
    retry: Retry = "failed",
    budget: BudgetSeconds = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was interrupted, cancelled or killed, without its job file."""
    from flows.batch import resume_run
    from pipeline.settings import load_settings

    with _interruptible(_resumable(run)):
        _end(resume_run(run, _verdicts(retry), load_settings(store=store), budget), as_json)


@app.command()
def cancel(run: RunName, store: Store = None, as_json: Json = False) -> None:
    """Stop a run from any terminal: the rest is left for `resume`."""
    from flows.batch import cancel_run
    from pipeline.settings import load_settings

    _answer(cancel_run(run, load_settings(store=store)), as_json)


@app.command()
def reconcile(
    run: RunName,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the pictures.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Prove a run's books: each row one record, each record its picture, and no orphans."""
    from flows.reconcile import reconcile_run
    from pipeline.settings import load_settings

    report = reconcile_run(run, load_settings(store=store), read_pictures=not quick)
    _answer(report, as_json)
    if report["lost"] or report["unexpected"]:
        raise typer.Exit(1)


@app.command()
def check(
    jobs: JobFile,
    collection: Collection = None,
    candidates: Candidates = None,
    threshold: Threshold = None,
    no_retrieval: NoRetrieval = False,
    pilot: Annotated[
        int | None,
        typer.Option(help="Really run so many rows, and estimate what all will cost.", min=2),
    ] = None,
    profile: ProfileName = None,
    as_json: Json = False,
) -> None:
    """Look a job file over without rendering: its bad rows, its models, and how much work it is."""
    from flows.checking import check_jobs
    from pipeline.settings import load_settings

    overrides = _overrides(candidates, threshold, collection, no_retrieval)
    _answer(check_jobs(jobs, overrides, load_settings(profile=profile), pilot), as_json)


@app.command()
def ingest(
    path: Annotated[Path, typer.Argument(help="A file or a folder of texts and pictures.")],
    collection: Annotated[str, typer.Option(help="Collection to put them into.")],
    anew: Annotated[
        bool, typer.Option("--anew", help="Replace the collection at once, when all is in.")
    ] = False,
    profile: ProfileName = None,
    as_json: Json = False,
) -> None:
    """Put texts and pictures into the knowledge base. Doing it again changes nothing."""
    from flows.knowledge import ingest_path
    from pipeline.settings import load_settings

    _answer(ingest_path(path, collection, load_settings(profile=profile), anew=anew), as_json)


@app.command()
def status(
    run: Annotated[str | None, typer.Argument(help="Default: the latest run.")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """How a run stands, counted from its records."""
    from flows.publish import status_of
    from pipeline.settings import load_settings

    _answer(status_of(load_settings(store=store), run), as_json)


@app.command()
def export(
    run: RunName,
    to: Annotated[
        Literal["parquet", "jsonl", "webdataset", "imagefolder"],
        typer.Option(help="A table, or a folder of pictures."),
    ],
    out: Annotated[Path | None, typer.Option(help="File or folder; default: by the run.")] = None,
    verdict: Annotated[
        str | None,
        typer.Option(help="Which jobs, with commas between, or all. Pictures: the accepted."),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Take a run's jobs, or its pictures with their texts, to a format that others read."""
    from flows.exporting.export import export_run
    from pipeline.job import Verdict
    from pipeline.settings import load_settings

    chosen = list(Verdict) if verdict == "all" else verdict and _verdicts(verdict, "--verdict")
    with _interruptible("Interrupted. Nothing was written."):
        _answer(export_run(run, to, load_settings(store=store), out, chosen or None), as_json)


@app.command()
def gallery(
    run: RunName,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Make a run's manifest and gallery again from its records."""
    from flows.publish import republish
    from pipeline.settings import load_settings

    _answer(republish(load_settings(store=store), run), as_json)


@app.command()
def reproduce(
    record: Annotated[str, typer.Argument(help="A record's path or s3:// address, or RUN/JOB.")],
    out: Annotated[Path | None, typer.Option(help="Write the new picture here (PNG).")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Render a record's winner again and compare it with the stored picture."""
    from flows.reproduce import reproduce_record
    from pipeline.settings import load_settings

    report = reproduce_record(record, load_settings(store=store), out)
    _answer(report, as_json)
    if not report["equal"]:
        raise typer.Exit(1)


@calibrate.command("race")
def calibrate_race(
    jobs: JobFile,
    count: Annotated[int, typer.Option("--jobs", help="Jobs to render in full.", min=1)] = 32,
    candidates: Candidates = 8,
    regret: Annotated[
        float, typer.Option(help="Part of the best score that may be missed.", min=0, max=1)
    ] = 0.02,
    collection: Collection = None,
    no_retrieval: NoRetrieval = False,
    profile: ProfileName = None,
    as_json: Json = False,
) -> None:
    """Measure how early previews tell the winner, and propose checkpoints for a race."""
    from flows.calibrate import calibrate_race as measure
    from pipeline.settings import load_settings

    overrides = _overrides(candidates, None, collection, no_retrieval)
    _answer(measure(jobs, overrides, count, regret, load_settings(profile=profile)), as_json)


@app.command()
def worker(
    devices: Devices = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Work on the runs of the Redis that PRESSRUN_REDIS_URL names, until stopped."""
    from pipeline.settings import load_settings
    from workers.devices import choose_devices
    from workers.supervisor import supervise

    settings = load_settings()
    if not settings.redis_url:
        raise ConfigError("PRESSRUN_REDIS_URL is not set: a worker needs the run's Redis.")
    named = "all" if settings.device == "auto" else settings.device
    chosen = choose_devices(devices or named)
    if len(chosen) > 1 and not settings.qdrant_url:
        raise ConfigError(
            "PRESSRUN_QDRANT_URL is not set: without a Qdrant server only one worker process can "
            "hold the knowledge base. Set it, or name one device with --devices."
        )
    raise typer.Exit(supervise(settings, chosen, parent))


@app.command()
def up(
    devices: Devices = None,
    s3: Annotated[bool, typer.Option("--s3", help="With rclone's S3 server as store.")] = False,
    as_json: Json = False,
) -> None:
    """Keep a whole stack up on this machine until stopped: Redis, Prefect and its UI, workers."""
    from flows.up import up as keep_up

    def ready(report: dict[str, Any]) -> None:
        _answer(report, as_json)
        sys.stdout.flush()

    keep_up(devices, s3, lambda step: console.print(step, highlight=False, markup=False), ready)


@app.command()
def deploy(as_json: Json = False) -> None:
    """Put the deployments of prefect.yaml on the Prefect server that PREFECT_API_URL names."""
    from flows.deploying import deploy as apply
    from pipeline.settings import load_settings

    _answer(apply(load_settings()), as_json)


@app.command()
def serve() -> None:
    """Run what the deployments start, in processes beside this one, until stopped."""
    from flows.deploying import serve as run_flows
    from pipeline.settings import load_settings

    run_flows(load_settings())


@app.command()
def doctor(
    profile: ProfileName = None,
    probe: Annotated[
        Literal["live", "ready"] | None,
        typer.Option(help="Ask only of this machine's `pressrun worker`, in no time."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Try every part that the settings name, and say what is wrong with those that fail."""
    from pipeline.settings import load_settings

    settings = load_settings(profile=profile)
    if probe:
        from workers.probe import probe as examine_worker

        report = examine_worker(settings, probe)
    else:
        from flows.doctor import examine

        report = examine(settings)
    _answer(report, as_json)
    if not report["healthy"]:
        raise typer.Exit(1)


def main() -> None:
    """The `pressrun` command: errors of ours are one clear line, not a traceback."""
    try:
        app()
    except PressrunError as error:
        _stop(str(error), 1)
    except KeyboardInterrupt:
        _stop(
            "Interrupted. What is done is kept; the same command goes on with the rest.",
            INTERRUPTED,
        )


def _overrides(
    candidates: int | None, threshold: float | None, collection: str | None, no_retrieval: bool
) -> "Overrides":
    from pipeline.intake.reader import Overrides

    return Overrides(
        candidates=candidates,
        threshold=threshold,
        collection=collection,
        retrieval=not no_retrieval,
    )


def _verdicts(names: str, option: str = "--retry") -> "list[Verdict]":
    from pipeline.errors import ConfigError
    from pipeline.job import Verdict

    try:
        return [Verdict(name.strip()) for name in names.split(",") if name.strip() != "none"]
    except ValueError:
        known = ", ".join(Verdict)
        raise ConfigError(f"{option} {names!r}: of {known}, with commas between; or none") from None


@contextmanager
def _interruptible(message: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _stop(message, INTERRUPTED)


def _resumable(run: str) -> str:
    return f"Interrupted. What is done is kept; `pressrun resume {run}` goes on."


def _end(summary: dict[str, Any], as_json: bool) -> None:
    _answer(summary, as_json)
    if "stopped" in summary:
        raise typer.Exit(OUT_OF_BUDGET)
    if summary["failed"]:
        raise typer.Exit(FAILED_ROWS)


def _stop(message: str, code: int) -> NoReturn:
    console.print(message, style="bold red", markup=False, highlight=False)
    sys.exit(code)


def _answer(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    from flows.reports import show

    show(report)


if __name__ == "__main__":
    main()
