"""Runs the command line as a user does: a process of its own, an exit code, a last line of JSON."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    chdir,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
)
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flows.cli.main import main
from tests.harness import prefect_database

LIMIT = 240.0
OURS = (sys.executable, "-m", "flows.cli")


def pressrun(
    *arguments: str,
    cwd: Path,
    settings: Mapping[str, str] | None = None,
    command: Sequence[str | Path] = OURS,
) -> "subprocess.CompletedProcess[str]":
    """The finished command; `settings` are environment variables on top of ours."""
    process = begin(*arguments, cwd=cwd, settings=settings, command=command)
    try:
        output, complaints = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        output, complaints = process.communicate(timeout=LIMIT)
    return subprocess.CompletedProcess(process.args, process.returncode, output, complaints)


def begin(
    *arguments: str,
    cwd: Path,
    settings: Mapping[str, str] | None = None,
    command: Sequence[str | Path] = OURS,
) -> "subprocess.Popen[str]":
    """The command, started. A server of Prefect's that it starts finds its tables made."""
    env = os.environ | (settings or {})
    if arguments[0] in ("demo", "run", "resume", "up") and "PREFECT_API_URL" not in env:
        prefect_database.provide(cwd / env.get("PRESSRUN_HOME", ".pressrun") / "prefect")
    return subprocess.Popen(
        [*command, *arguments],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # where the tests run in the background the shell has them ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def pressrun_here(
    *arguments: str, cwd: Path, settings: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """The finished command, executed by this process, which has imported what it needs: for
    commands that start no services, or find them all in their settings.
    """
    output, complaints, code = io.StringIO(), io.StringIO(), 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with (
        chdir(cwd),
        patch.dict(os.environ, settings or {}),
        _prefect_at((settings or {}).get("PREFECT_API_URL")),
        patch.object(sys, "argv", ["pressrun", *arguments]),
        redirect_stdout(output),
        redirect_stderr(complaints),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            gc.collect()  # what the end of a process would close, such as the knowledge base
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), complaints.getvalue())


def _prefect_at(address: str | None) -> AbstractContextManager[object]:
    """Have Prefect use this server: it reads the variable when it is imported."""
    if not address:
        return nullcontext()
    from prefect.settings import PREFECT_API_URL, temporary_settings

    return temporary_settings({PREFECT_API_URL: address})


def answer(done: "subprocess.CompletedProcess[str]", code: int = 0) -> dict[str, Any]:
    """The JSON object in the last line of a command that ended with `code`."""
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    report = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(report, dict)
    return report
