"""The speed of `pressrun check` on a job file, and the growth of its memory (on Linux).

Writes a CSV, or a workbook (--suffix .xlsx), with so many rows into a temporary folder, one row in
a hundred twice and one in a hundred bad, and checks it in a process of its own. While that process
has the job file open its resident memory is read again and again, so imports and the start don't
blur the figure: `rss_growth` is the median of the last tenth of these readings over that of the
first tenth.
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import ROOT, arguments, show

PAUSE = 0.05
COLUMNS = "id,keywords,style,candidates,seed,meta.product"


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--suffix", choices=[".csv", ".xlsx"], default=".csv")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(given.rows, Path(folder), given.suffix)
    show("Checking a job file", figures)
    if given.json:
        print(json.dumps(figures))


def measure(rows: int, workdir: Path, suffix: str = ".csv") -> dict[str, Any]:
    """Check so many rows once; answers counts, rows per second, and memory."""
    jobs = workdir / f"jobs{suffix}"
    write_jobs(workdir / "jobs.csv", rows)
    if suffix == ".xlsx":
        to_workbook(workdir / "jobs.csv", jobs)
    command = [sys.executable, "-m", "flows.cli", "check", str(jobs), "--json"]
    with (workdir / "answer").open("w+", encoding="utf-8") as answer:
        with subprocess.Popen(command, cwd=ROOT, stdout=answer) as process:
            memory = watch(process, jobs)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
        answer.seek(0)
        report = json.loads(answer.read().strip().splitlines()[-1])
    return {
        **{name: report[name] for name in ("rows", "jobs", "duplicates", "invalid")},
        "seconds": memory.seconds,
        "rows_per_s": rows / memory.seconds,
        "rows_per_cpu_s": rows / memory.cpu_seconds,
        "rss_growth": memory.growth(),
        "peak_mb": memory.peak / 2**20,
    }


def write_jobs(path: Path, rows: int) -> None:
    """A job file in which each hundredth row is the one before again, and each hundredth bad."""
    with path.open("w", encoding="utf-8") as file:
        print(COLUMNS, file=file)
        for number in range(rows):
            row = number - (number % 100 == 99)
            candidates = "many" if number % 100 == 50 else 1 + row % 4
            keywords = f'"red circle, number {row}"'
            style = "{soft|bold} edges"
            print(f"row-{row},{keywords},{style},{candidates},{row},mug {row % 977}", file=file)


def to_workbook(source: Path, path: Path) -> None:
    """A workbook of the rows of a CSV, all of them texts."""
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Jobs")
    with source.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            sheet.append(row)
    book.save(path)


@dataclass
class Memory:
    """Resident memory of a process while it read, in bytes, and how long it took."""

    readings: list[int] = field(default_factory=list)
    peak: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def growth(self) -> float:
        """The last tenth over the first tenth."""
        tenth = max(1, len(self.readings) // 10)
        return median(self.readings[-tenth:]) / median(self.readings[:tenth])


def watch(process: "subprocess.Popen[bytes]", file: Path) -> Memory:
    """Read a process's memory while it has the file open, until it ends."""
    memory = Memory()
    proc, begun = Path("/proc", str(process.pid)), (0.0, 0.0)
    while process.poll() is None:
        # what has just ended has no such files any more
        with suppress(OSError, KeyError):
            if any(link.readlink() == file for link in (proc / "fd").iterdir()):
                now, status = (time.monotonic(), _cpu_seconds(proc)), _status(proc)
                begun = begun if memory.readings else now
                memory.seconds, memory.cpu_seconds = now[0] - begun[0], now[1] - begun[1]
                memory.readings.append(status["VmRSS"])
                memory.peak = status["VmHWM"]
        time.sleep(PAUSE)
    if not memory.cpu_seconds:
        raise RuntimeError("The check was over before it could be measured; take more rows.")
    return memory


def _status(proc: Path) -> dict[str, int]:
    """The sizes in a process's status, in bytes."""
    lines = (line.split() for line in (proc / "status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def _cpu_seconds(proc: Path) -> float:
    # utime and stime, the 14th and 15th field; the 2nd may hold blanks, the rest don't
    ticks = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / 100


if __name__ == "__main__":
    main()
