"""The commands about what runs need: knowledge, workers, a stack, Prefect."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.cli.options import Devices, Json, ProfileName
from flows.cli.output import answer, console
from pipeline.errors import ConfigError

app = typer.Typer()


@app.command()
def ingest(
    path: Annotated[Path, typer.Argument(help="A file or a folder of texts and images.")],
    collection: Annotated[str, typer.Option(help="Collection to put them into.")],
    anew: Annotated[
        bool, typer.Option("--anew", help="Replace the collection at once, when all is in.")
    ] = False,
    profile: ProfileName = None,
    as_json: Json = False,
) -> None:
    """Put texts and images into the knowledge base. Doing it again changes nothing."""
    from flows.runs.knowledge import ingest_path
    from pipeline.settings import load_settings

    answer(ingest_path(path, collection, load_settings(profile=profile), anew=anew), as_json)


@app.command()
def worker(
    devices: Devices = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Work on the runs of the Redis that PRESSRUN_REDIS_URL names, until stopped."""
    from pipeline.settings import load_settings
    from workers.processes.supervisor import supervise
    from workers.worker.devices import choose_devices, require_devices

    settings = load_settings()
    if not settings.redis_url:
        raise ConfigError("PRESSRUN_REDIS_URL is not set: a worker needs the run's Redis.")
    named = "all" if settings.device == "auto" else settings.device
    require_devices(devices or named)
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
    from flows.stack.up import up as keep_up

    def ready(report: dict[str, Any]) -> None:
        answer(report, as_json)
        sys.stdout.flush()

    keep_up(
        devices,
        s3,
        lambda step: console.print(step, highlight=False, markup=False, soft_wrap=True),
        ready,
    )


@app.command()
def deploy(as_json: Json = False) -> None:
    """Put the deployments of prefect.yaml on the Prefect server that PREFECT_API_URL names."""
    from flows.deploy import deploy as apply
    from pipeline.settings import load_settings

    answer(apply(load_settings()), as_json)


@app.command()
def serve() -> None:
    """Run what the deployments start, in processes beside this one, until stopped."""
    from flows.deploy import serve as run_flows
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
    from flows.stack.doctor import examine
    from flows.stack.doctor import probe as examine_workers
    from pipeline.settings import load_settings

    settings = load_settings(profile=profile)
    report = examine_workers(settings, probe) if probe else examine(settings)
    answer(report, as_json)
    if not report["healthy"]:
        raise typer.Exit(1)
