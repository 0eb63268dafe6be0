"""Shared by the benchmarks: the command line under test, and tables of figures."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.cli.output import FAILED_ROWS
from flows.runs.open import asked_for
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.stores import open_run_folder
from pipeline.job import Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.ports import Ports
from pipeline.settings import Settings

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "shapes"


def arguments(about: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark."""
    program = sys.modules["__main__"].__spec__  # a package's file is called __main__.py
    name = f"python -m {program.name.removesuffix('.__main__')}" if program else None
    parser = argparse.ArgumentParser(name, description=about)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser


def pressrun(*words: str, workdir: Path) -> dict[str, Any]:
    """Run a pressrun command in `workdir`; returns its JSON. Progress goes to stderr."""
    command = [sys.executable, "-m", "flows.cli", *words, "--json"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=workdir, env=env, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in (0, FAILED_ROWS):
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def wired(
    settings: Settings, keywords: Sequence[str], overrides: Overrides
) -> tuple[Assembly, Ports, list[Job]]:
    """An assembly as in a worker, its ports, and a job for each of these keywords."""
    settings.home.mkdir(parents=True, exist_ok=True)
    file = settings.home / "jobs.jsonl"
    file.write_text("".join(json.dumps({"keywords": text}) + "\n" for text in keywords))
    spec = asked_for(file, overrides, settings, open_run_folder(settings, "benchmark"))
    assembly = Assembly(settings)
    ports = assembly.ports(spec)
    rows = read_jobs(file, settings.chosen_profile, overrides)
    return assembly, ports, [row for row in rows if isinstance(row, Job)]


def show(title: str, figures: dict[str, Any]) -> None:
    """A table of figures for people."""
    table = Table("measured", "figure", title=title, title_justify="left")
    for name, value in figures.items():
        table.add_row(
            name.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else str(value)
        )
    Console().print(table)
