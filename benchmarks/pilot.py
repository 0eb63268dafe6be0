"""The accuracy of a pilot: its estimate over the run's own device seconds.

The first rows of the larger job file are checked with a pilot and then run, embedded and through
the command line. Both measure how long models worked by the clock, so what else the machine does
meanwhile shows too: a second pilot after the run tells how much that was.
"""

import json
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.common import EXAMPLE, arguments, pressrun, show


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--pilot", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(given.rows, given.pilot, given.candidates, Path(folder))
    show("A pilot and its run", figures)
    if given.json:
        print(json.dumps(figures))


def measure(rows: int, pilot: int, candidates: int, workdir: Path) -> dict[str, Any]:
    """Check so many rows with a pilot, and run them; answers both figures."""
    with (EXAMPLE / "jobs-large.csv").open(encoding="utf-8") as file:
        (workdir / "jobs.csv").write_text("".join(islice(file, rows + 1)), encoding="utf-8")
    knowledge = str(EXAMPLE / "knowledge" / "brands.jsonl")
    pressrun("ingest", knowledge, "--collection", "brands", workdir=workdir)
    words = ("jobs.csv", "--collection", "brands", "--candidates", str(candidates))
    told = pressrun("check", *words, "--pilot", str(pilot), workdir=workdir)
    summary = pressrun("run", *words, workdir=workdir)
    again = pressrun("check", *words, "--pilot", str(pilot), workdir=workdir)
    before, after = (_estimates(report) for report in (told, again))
    device, accepted = before["device_seconds"], before["accepted"]
    spent: float = summary["device_seconds"]
    return {
        "rows": summary["rows"],
        "pilot": told["pilot_jobs"],
        "estimated_device_seconds": device["expected"],
        "low": device["low"],
        "high": device["high"],
        "device_seconds": spent,
        "estimate_over_run": device["expected"] / spent,
        "estimate_after_over_run": after["device_seconds"]["expected"] / spent,
        "estimated_accepted": accepted["expected"],
        "accepted": summary["accepted"],
        "pilot_seconds": told["pilot_wall_seconds"] + told["loading_seconds"],
        "run_seconds": summary["seconds"],
    }


def _estimates(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {line["of"]: line for line in report["estimates"]}


if __name__ == "__main__":
    main()
