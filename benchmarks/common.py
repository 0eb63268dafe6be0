"""Shared by the benchmarks: the command line under test, and tables of figures."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.cli.output import FAILED_ROWS

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


def show(title: str, figures: dict[str, Any]) -> None:
    """A table of figures for people."""
    table = Table("measured", "figure", title=title, title_justify="left")
    for name, value in figures.items():
        table.add_row(
            name.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else str(value)
        )
    Console().print(table)
