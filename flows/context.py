"""The surroundings of a flow: settings, masking of secrets, and the runs in work."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType

from pipeline.errors import ConfigError, PressrunError
from pipeline.masking import mask
from pipeline.settings import Settings, load_settings

GENERATE = "generate"
BATCH = f"{GENERATE}/generate-batch"
"""The deployment that makes a run."""

IN_WORK = [StateType(name) for name in ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")]
PAGE = 200


@contextmanager
def masked() -> Iterator[None]:
    """Mask secrets in errors that leave the block, because Prefect's database keeps their text."""
    try:
        yield
    except PressrunError:
        raise
    except Exception as error:
        if mask(str(error)) == str(error):
            raise
        raise PressrunError(f"{type(error).__name__}: {error}") from None


SETTINGS: ContextVar[Settings] = ContextVar("settings")
"""The settings of the flows that this context calls; a deployed flow reads its environment."""


def flow_settings(**overrides: Any) -> Settings:
    """The context's settings or those of the environment, overridden by the `overrides` that are
    not None.

    Raises ConfigError, also for a relative folder in a deployed flow, which runs in a temporary
    folder of its own.
    """
    given = SETTINGS.get(None)
    values = given.model_dump(exclude={"chosen_profile"}) if given else {}
    values |= {name: value for name, value in overrides.items() if value is not None}
    settings = load_settings(**values)
    for name in ("store", "inbox"):
        place = getattr(settings, name)
        relative = place and "://" not in place and not Path(place).is_absolute()
        if runtime.deployment.id and relative:
            raise ConfigError(
                f"PRESSRUN_{name.upper()}: {place!r} depends on where a flow runs. Start the "
                "Prefect worker with `pressrun serve`, or give an absolute folder or "
                "s3://bucket/prefix."
            )
    return settings


def runs_in_work() -> set[str]:
    """The runs that flow runs of this Prefect server work on, or are about to."""
    ours = FlowFilter(name=FlowFilterName(any_=[GENERATE]))
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=IN_WORK))
    in_work = FlowRunFilter(state=state)
    runs, offset = set[str](), 0
    with get_client(sync_client=True) as client:
        while found := client.read_flow_runs(
            flow_filter=ours, flow_run_filter=in_work, limit=PAGE, offset=offset
        ):
            runs |= {str(flow_run.parameters.get("run", "")) for flow_run in found}
            offset += len(found)
    return runs
