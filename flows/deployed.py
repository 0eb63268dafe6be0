"""What a flow finds around it, whether the command line or a Prefect worker runs it."""

from pathlib import Path
from typing import Any

from prefect import runtime

from pipeline.errors import ConfigError
from pipeline.settings import Settings, load_settings


def flow_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with what is not None in `overrides` on top.

    Raises ConfigError, also where a deployed flow would keep its pictures in the temporary folder
    that it works in.
    """
    settings = load_settings(**overrides)
    in_folder = "://" not in settings.store and not Path(settings.store).is_absolute()
    if runtime.deployment.id and in_folder:
        raise ConfigError(
            f"PRESSRUN_STORE: {settings.store!r} depends on where a flow runs. Start the Prefect "
            "worker with `pressrun serve`, or give an absolute folder or s3://bucket/prefix."
        )
    return settings
