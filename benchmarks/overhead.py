"""The cost of the chain beside its models: wall time over the sum of all model calls.

Runs the first rows of the larger job file through the command line, embedded. Each record holds
the job's share of every batched call of writer, renderer and judge, so their sum is the time that
models worked. The chain's wall time is from the start of the first job to the last record; the
start of services and the loading of models come before that and are reported on their own.
"""

import json
import tempfile
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.common import EXAMPLE, arguments, pressrun, show


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(given.rows, Path(folder))
    show("Overhead of the chain", figures)
    if given.json:
        print(json.dumps(figures))


def measure(rows: int, workdir: Path) -> dict[str, Any]:
    """Run so many rows once; answers seconds, shares and the ratio."""
    with (EXAMPLE / "jobs-large.csv").open(encoding="utf-8") as file:
        (workdir / "jobs.csv").write_text("".join(islice(file, rows + 1)), encoding="utf-8")
    knowledge = str(EXAMPLE / "knowledge" / "brands.jsonl")
    pressrun("ingest", knowledge, "--collection", "brands", workdir=workdir)
    summary = pressrun("run", "jobs.csv", "--collection", "brands", workdir=workdir)
    records = [
        json.loads(path.read_text()) for path in Path(summary["folder"], "records").iterdir()
    ]
    begun = min(_end(record) - sum(record["seconds"].values()) for record in records)
    wall = max(map(_end, records)) - begun
    models = {
        role: sum(record["device_seconds"].get(role, 0.0) for record in records)
        for role in ("writer", "renderer", "judge")
    }
    return {
        "rows": summary["rows"],
        "accepted": summary["accepted"],
        "chain_seconds": wall,
        **{f"{role}_seconds": seconds for role, seconds in models.items()},
        "chain_over_models": wall / sum(models.values()),
        "with_start_and_publishing_seconds": summary["seconds"],
    }


def _end(record: dict[str, Any]) -> float:
    return datetime.fromisoformat(record["created_at"]).timestamp()


if __name__ == "__main__":
    main()
