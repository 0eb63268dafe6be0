"""The deployments of prefect.yaml: put on a Prefect server, and served by a Prefect worker."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from flows.stack.embedded import quiet_prefect, require_prefect
from flows.stack.environment import anchored, environment
from flows.stack.services import POOL
from pipeline.errors import ConfigError, Unavailable
from pipeline.settings import Settings

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")
LIMIT = 300.0


def deploy(settings: Settings) -> dict[str, Any]:
    """Create our work pool and the deployments of prefect.yaml on the Prefect server; returns their
    names. The inbox's schedule is paused if there is no inbox. Running it again changes nothing.

    Raises ConfigError without a server's address or with a wrong password, Unavailable if the
    server does not answer or refuses.
    """
    address = _server(settings)
    # Prefect is imported once its variables are set
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    _make_pool()
    words = ["--no-prompt", "deploy", "--all", "--prefect-file", DEPLOYMENTS.name]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "prefect", *words],
        cwd=DEPLOYMENTS.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"Prefect at {address}: {(done.stderr or done.stdout).strip()[-2000:]}")
    ours = WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))
    with get_client(sync_client=True) as client:
        deployments = client.read_deployments(work_pool_filter=ours)
        for deployment in deployments:
            if deployment.name == "inbox" and not settings.inbox:
                for schedule in deployment.schedules:
                    client.update_deployment_schedule(deployment.id, schedule.id, active=False)
    names = sorted(deployment.name for deployment in deployments)
    return {"server": address, "pool": POOL, "deployments": names}


def serve(settings: Settings) -> NoReturn:
    """Become a Prefect worker that runs flows in child processes, until stopped.

    They get their settings from its environment. Folders in it are absolute, because each flow run
    has a temporary working folder of its own. Raises as `deploy`.
    """
    # unlike other commands it prints no result that a log could disturb
    address = _server(settings, PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="INFO")
    words = ["worker", "start", "--pool", POOL, "--type", "process"]
    command = [sys.executable, "-m", "prefect", *words]
    inherited = environment(anchored(settings)) | {"PREFECT_API_URL": address}
    os.execve(sys.executable, command, inherited)


def _server(settings: Settings, **defaults: str) -> str:
    quiet_prefect(settings, **defaults)
    if address := require_prefect():
        return address
    from prefect.settings import get_current_settings

    if named := get_current_settings().api.url:
        # a profile of Prefect's names it
        return require_prefect(os.environ | {"PREFECT_API_URL": named})
    raise ConfigError(
        "PREFECT_API_URL is not set: deployments live on a Prefect server. Start one with "
        "`prefect server start` and name it, such as http://127.0.0.1:4200/api."
    )


def _make_pool() -> None:
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template)
    try:
        with get_client(sync_client=True) as client:
            client.create_work_pool(pool)
    except ObjectAlreadyExists:
        pass
    except (HTTPError, RuntimeError) as error:
        raise Unavailable(f"Prefect: {error}") from error
