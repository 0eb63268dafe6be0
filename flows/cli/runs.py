"""The commands about runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.options import (
    BudgetSeconds,
    FailOn,
    JobFile,
    Json,
    ProfileName,
    Quota,
    Retry,
    RunName,
    Store,
    Yes,
    statuses_of,
    takes_overrides,
)
from flows.cli.output import UNSOUND, agree, answer, end, interruptible, next_steps, resumable

if TYPE_CHECKING:
    from pipeline.jobfile.builder import Overrides

BRANDS = "brands"
"""The demo's collection."""

app = typer.Typer()
calibrate = typer.Typer(help="Measure on this model what a setting may be.", no_args_is_help=True)
app.add_typer(calibrate, name="calibrate")


@app.command()
@takes_overrides()
def run(
    jobs: JobFile,
    overrides: "Overrides",
    run: Annotated[str | None, typer.Option("--run", help="Name; default: the file's.")] = None,
    store: Store = None,
    retry: Retry = "failed",
    fail_on: FailOn = "none",
    budget: BudgetSeconds = None,
    quota: Quota = None,
    profile: ProfileName = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Turn a job file into judged images. The same file again does only what is left."""
    from flows.cli.batch import Limits, run_batch
    from flows.job_files import at_hand
    from flows.runs.open import run_name
    from pipeline.settings import load_settings

    retried, refused = statuses_of(retry), statuses_of(fail_on, "--fail-on")
    settings = load_settings(store=store, profile=profile)
    with at_hand(jobs, settings) as path, interruptible(resumable(run or run_name(path), store)):
        ask = (lambda _: None) if yes else agree
        limits = Limits(budget_gpu_seconds=budget, quota=quota)
        end(run_batch(path, run, overrides, retried, settings, limits, ask), as_json, refused)


@app.command()
def demo(
    run: Annotated[str, typer.Option("--run", help="Name.")] = "demo",
    store: Store = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Turn the job file that comes with Pressrun into images, with the knowledge it needs."""
    from flows.cli.batch import Limits, run_batch
    from flows.runs.knowledge import ingest_path
    from pipeline.jobfile.builder import Overrides
    from pipeline.record import Status
    from pipeline.settings import EXAMPLE, load_settings

    settings = load_settings(store=store)
    report = ingest_path(EXAMPLE / "knowledge" / "brands.jsonl", BRANDS, settings)
    if not as_json:
        answer(report, as_json)
    jobs, overrides = EXAMPLE / "jobs.csv", Overrides(collection=BRANDS)
    ask = (lambda _: None) if yes else agree
    with interruptible(resumable(run, store)):
        end(run_batch(jobs, run, overrides, [Status.FAILED], settings, Limits(), ask), as_json)


@app.command()
def resume(
    run: RunName,
    retry: Retry = "failed",
    fail_on: FailOn = "none",
    budget: BudgetSeconds = None,
    quota: Quota = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was interrupted, cancelled or killed, without its job file."""
    from flows.cli.batch import Limits, resume_run
    from pipeline.settings import load_settings

    retried, refused = statuses_of(retry), statuses_of(fail_on, "--fail-on")
    settings = load_settings(store=store)
    with interruptible(resumable(run, store)):
        limits = Limits(budget_gpu_seconds=budget, quota=quota)
        end(resume_run(run, retried, settings, limits), as_json, refused)


@app.command()
def cancel(run: RunName, store: Store = None, as_json: Json = False) -> None:
    """Stop a run from any terminal: the rest is left for `resume`."""
    from flows.cli.batch import cancel_run
    from pipeline.settings import load_settings

    answer(cancel_run(run, load_settings(store=store)), as_json)


@app.command()
def reconcile(
    run: RunName,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the images.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Check that each row has one record and each record its image; remove orphans."""
    from flows.runs.reconcile import reconcile_run
    from pipeline.settings import load_settings

    report = reconcile_run(run, load_settings(store=store), read_images=not quick)
    answer(report, as_json)
    if report["lost"] or report["unexpected"]:
        raise typer.Exit(1)


@app.command()
@takes_overrides()
def check(
    jobs: JobFile,
    overrides: "Overrides",
    pilot: Annotated[
        int | None,
        typer.Option(help="Really run so many rows, and estimate what all will cost.", min=2),
    ] = None,
    mapped: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="NAME=COLUMN",
            help="Read the file's column NAME as COLUMN or meta.NAME, or leave it out (NAME=). "
            "Repeatable; remembered for `run` beside the file, as are --sheet and --encoding.",
        ),
    ] = None,
    sheet: Annotated[
        str, typer.Option(help="The workbook's sheet; needed where several hold rows.")
    ] = "",
    encoding: Annotated[
        str, typer.Option(help="Of a text file without a byte order mark; default: UTF-8.")
    ] = "",
    fail_on: FailOn = "none",
    profile: ProfileName = None,
    as_json: Json = False,
) -> None:
    """Look a job file over without rendering: its bad rows, its models, and how much work it is."""
    from flows.job_files import at_hand, read_as
    from flows.runs.check import check_jobs
    from pipeline.jobfile.reading import Reading, reading_of
    from pipeline.settings import load_settings

    refused = statuses_of(fail_on, "--fail-on")
    settings = load_settings(profile=profile)
    with at_hand(jobs, settings) as path:
        if mapped or sheet or encoding:
            reading = reading_of(sheet, encoding, mapped or [], Reading.beside(path))
            with read_as(jobs, path, reading, settings) as beside:
                report = check_jobs(path, overrides, settings, pilot) | {"remembered_in": beside}
        else:
            report = check_jobs(path, overrides, settings, pilot)
        end(report, as_json, refused)


@app.command()
def status(
    run: Annotated[str | None, typer.Argument(help="Default: the latest run.")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Show a run's state, counted from its records, and what to do next."""
    from flows.runs.publish import status_of
    from flows.runs.states import OPEN
    from pipeline.settings import load_settings

    report = status_of(load_settings(store=store), run)
    if report["state"] in OPEN:
        report["next"] = list(next_steps(report["run"], store))
    answer(report, as_json)


@app.command("list")
def list_runs(
    everything: Annotated[
        bool, typer.Option("--all", help="Not only the 20 that were opened last.")
    ] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List the runs of the store with their states, the latest first."""
    from flows.runs.states import list_runs as runs_of
    from pipeline.settings import load_settings

    answer(runs_of(load_settings(store=store), everything), as_json)


@app.command()
def export(
    run: RunName,
    to: Annotated[
        Literal["parquet", "jsonl", "webdataset", "imagefolder"],
        typer.Option(help="A table, or a folder of images."),
    ],
    out: Annotated[Path | None, typer.Option(help="File or folder; default: by the run.")] = None,
    status: Annotated[
        str | None,
        typer.Option(help="Which jobs, with commas between, or all. Images: the accepted."),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Take a run's jobs, or its images with their texts, to a format that others read."""
    from flows.runs.export.export import export_run
    from pipeline.record import Status
    from pipeline.settings import load_settings

    chosen = list(Status) if status == "all" else status and statuses_of(status, "--status")
    with interruptible("Interrupted. Nothing was written."):
        answer(export_run(run, to, load_settings(store=store), out, chosen or None), as_json)


@app.command()
def gallery(
    run: RunName,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Make a run's manifest and gallery again from its records."""
    from flows.runs.publish import republish
    from pipeline.settings import load_settings

    answer(republish(load_settings(store=store), run), as_json)


@app.command()
def reproduce(
    record: Annotated[str, typer.Argument(help="A record's path or s3:// address, or RUN/JOB.")],
    out: Annotated[Path | None, typer.Option(help="Write the new image here (PNG).")] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Render a record's winner again and compare it with the stored image."""
    from flows.runs.reproduce import reproduce_record
    from pipeline.settings import load_settings

    report = reproduce_record(record, load_settings(store=store), out)
    answer(report, as_json)
    if not report["equal"]:
        raise typer.Exit(1)


@calibrate.command("race")
@takes_overrides(without=("threshold",), candidates=8)
def calibrate_race(
    jobs: JobFile,
    overrides: "Overrides",
    count: Annotated[int, typer.Option("--jobs", help="Jobs to render in full.", min=1)] = 32,
    regret: Annotated[
        float, typer.Option(help="Part of the best score that may be missed.", min=0, max=1)
    ] = 0.02,
    profile: ProfileName = None,
    as_json: Json = False,
) -> None:
    """Measure how early previews tell the winner, and propose rungs for a race. Ends with 1 where
    the profile's own rungs lose to simply fewer candidates.
    """
    from flows.job_files import at_hand
    from flows.runs.calibrate import calibrate_race as measure
    from pipeline.settings import load_settings

    settings = load_settings(profile=profile)
    with at_hand(jobs, settings) as path:
        report = measure(path, overrides, count, regret, settings)
    answer(report, as_json)
    if "refused" in report:
        raise typer.Exit(UNSOUND)


@calibrate.command("draft")
@takes_overrides(candidates=8)
def calibrate_draft(
    jobs: JobFile,
    overrides: "Overrides",
    count: Annotated[int, typer.Option("--jobs", help="Jobs to render both ways.", min=1)] = 32,
    regret: Annotated[
        float, typer.Option(help="Part of the best score that may be missed.", min=0, max=1)
    ] = 0.02,
    profile: ProfileName = None,
    as_json: Json = False,
) -> None:
    """Measure how well drafts of few steps rank candidates, and what each number of survivors would
    cost and miss. Ends with 1 where the profile's own lose to simply fewer candidates.
    """
    from flows.job_files import at_hand
    from flows.runs.calibrate import calibrate_draft as measure
    from pipeline.settings import load_settings

    settings = load_settings(profile=profile)
    with at_hand(jobs, settings) as path:
        report = measure(path, overrides, count, regret, settings)
    answer(report, as_json)
    if "refused" in report:
        raise typer.Exit(UNSOUND)


@calibrate.command("stop")
@takes_overrides(candidates=8)
def calibrate_stop(
    jobs: JobFile,
    overrides: "Overrides",
    count: Annotated[int, typer.Option("--jobs", help="Jobs to render in full.", min=1)] = 64,
    out: Annotated[Path | None, typer.Option(help="Write a profile with the prior here.")] = None,
    profile: ProfileName = None,
    as_json: Json = False,
) -> None:
    """Measure which scores images have, and what giving up hopeless rows would save and cost."""
    from flows.job_files import at_hand
    from flows.runs.calibrate import calibrate_stop as measure
    from pipeline.settings import load_settings

    settings = load_settings(profile=profile)
    with at_hand(jobs, settings) as path:
        answer(measure(path, overrides, count, settings, out), as_json)


@calibrate.command("gate")
def calibrate_gate(
    run: RunName,
    reviews: Annotated[
        Path | None,
        typer.Option(help="CSV or JSONL with job or image, and right: yes or no.", dir_okay=False),
    ] = None,
    precision: Annotated[
        float, typer.Option(help="Part of the accepted images that shall be right.", min=0, max=1)
    ] = 0.95,
    count: Annotated[
        int, typer.Option("--jobs", help="Without reviews: winners to judge again.", min=1)
    ] = 256,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Find the threshold with which a run's accepted images are right, by reviews of its images, or
    without any by briefs that they were not made for. With reviews it also weighs several judges.
    """
    from flows.runs.gate import calibrate_gate as measure
    from pipeline.settings import load_settings

    settings = load_settings(store=store)
    with interruptible("Interrupted. Nothing was written."):
        answer(measure(run, reviews, precision, count, settings), as_json)
