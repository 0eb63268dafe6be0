"""A Prefect database with its tables, made once: a new server makes them itself, for 10 seconds."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

NAME = "prefect.db"
MADE = Path(__file__).parents[2] / ".build" / f"prefect-{version('prefect')}.db"


def provide(prefect_home: Path) -> None:
    """Copy it into a home of Prefect's that has no database yet."""
    if (prefect_home / NAME).exists():
        return
    MADE.parent.mkdir(exist_ok=True)
    with MADE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not MADE.exists():
            _make()
    prefect_home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(MADE, prefect_home / NAME)


def _make() -> None:
    with tempfile.TemporaryDirectory(dir=MADE.parent) as home:
        words = ["prefect", "server", "database", "upgrade", "--yes"]
        env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        subprocess.run(
            [sys.executable, "-m", *words],
            env=env | {"PREFECT_HOME": home, "DO_NOT_TRACK": "1"},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        Path(home, NAME).rename(MADE)
