"""What lies in an inbox and cannot be taken as a job file, whatever it holds."""

import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline.jobfile.rows import suffix_of

LONGEST_NAME = 200
"""Bytes of a file's name; what is put beside it has a longer one."""
_SHOWN = 60


def wrong_name(name: str) -> str:
    """Why a file of this name is not taken; empty where it may be."""
    if not name.isprintable() or "\\" in name:
        return "its name holds a backslash, a control character or what is not UTF-8; rename it"
    if len(name.encode()) > LONGEST_NAME:
        return f"its name is longer than {LONGEST_NAME} bytes; rename it"
    return ""


def safe_name(name: str) -> str:
    """The name itself, or a short one that any store takes and no other file has."""
    if not wrong_name(name):
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
    plain = re.sub(r"[^A-Za-z0-9._ -]+", "-", Path(name).stem)[:_SHOWN].strip(". ")
    return f"{plain or 'file'}-{digest}{suffix_of(Path(name))}"


def strays(folder: Path, suffixes: Collection[str]) -> Iterator[tuple[str, str]]:
    """The files with one of these suffixes that cannot be taken, and why."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if suffix_of(Path(entry.name)) in suffixes]
    for entry in found:
        mode = entry.stat(follow_symlinks=False).st_mode
        if entry.name.startswith(".") or stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            yield entry.name, "it is a link, a pipe or a device, not a file"
        elif not os.access(entry.path, os.R_OK):
            yield entry.name, "it cannot be read; give it other rights"
        elif reason := wrong_name(entry.name):
            yield entry.name, reason
