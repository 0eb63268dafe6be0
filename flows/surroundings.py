"""What the environment of a command may lack, for this process and those that it starts."""

import io
import os
import sys
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def settle() -> None:
    """Make up for it. Before anything reads the environment."""
    reach_loopback_directly()
    _have_a_home()
    # a folder of the name of one of our packages must not be taken for it
    os.environ["PYTHONSAFEPATH"] = "1"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def reach_loopback_directly() -> None:
    """Keep a proxy away from what runs on this machine."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in LOOPBACK if host not in hosts]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(hosts)


def _have_a_home() -> None:
    """Libraries look for the user's home; one without an entry in passwd has ours."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(Path(os.environ.get("PRESSRUN_HOME") or ".pressrun").absolute())
