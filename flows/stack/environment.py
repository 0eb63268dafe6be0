"""The environment of a command and its child processes, completed before anything reads it."""

import io
import os
import sys
from difflib import get_close_matches
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def settle() -> None:
    """Complete the environment. Call it before anything reads the environment."""
    reach_loopback_directly()
    try:
        Path.home()
    except RuntimeError:  # no entry in passwd, but libraries need a home
        os.environ["HOME"] = str(Path(os.environ.get("PRESSRUN_HOME") or ".pressrun").absolute())
    # a folder with the name of one of our packages must not shadow it
    os.environ["PYTHONSAFEPATH"] = "1"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def reach_loopback_directly() -> None:
    """Exclude this machine from any proxy."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in LOOPBACK if host not in hosts]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(hosts)


def unknown_settings() -> list[str]:
    """A warning for each variable PRESSRUN_… that is no setting."""
    from pipeline.settings import Settings

    known = [f"PRESSRUN_{name.upper()}" for name in Settings.model_fields]
    warnings = []
    for name in sorted(os.environ):
        if name.upper().startswith("PRESSRUN_") and name.upper() not in known:
            near = get_close_matches(name.upper(), known, 1, 0.8)
            hint = f"; did you mean {near[0]}?" if near else ""
            warnings.append(f"{name} is no setting and has no effect{hint}")
    return warnings
