"""Runs the command line as a user does: a process of its own, an exit code, a last line of JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIMIT = 240.0


def pressrun(
    *arguments: str, cwd: Path, settings: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """The finished command; `settings` are environment variables on top of ours."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=cwd,
        env=os.environ | (settings or {}),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def answer(done: "subprocess.CompletedProcess[str]", code: int = 0) -> dict[str, Any]:
    """The JSON object in the last line of a command that ended with `code`."""
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    report = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(report, dict)
    return report
