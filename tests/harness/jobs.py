"""Jobs and job files for tests that render small images, or none."""

from pathlib import Path
from typing import Any

from pipeline.job import Job


def make_job(number: int = 0, **fields: Any) -> Job:
    """The job of a row by its place, counted from 0; `fields` replace its values."""
    defaults = {
        "id": f"j{number:03}", "row": number + 2, "keywords": "red circle", "candidates": 1,
        "threshold": 0.5, "width": 64, "height": 64, "steps": 2, "guidance": 1.0, "seed": number,
        "passages": 0, "mode": "keywords", "contest": "best_of", "wave": 1,
    }  # fmt: skip
    return Job(**defaults | fields)


def write_jobs(path: Path, rows: int, first: int = 0) -> None:
    """Write a job file of different rows, numbered from `first`: each one small candidate that
    passes its threshold.
    """
    with path.open("w", encoding="utf-8") as file:
        print("id,keywords,candidates,threshold,width,height,passages,seed", file=file)
        for number in range(first, first + rows):
            print(f'row-{number},"red circle, number {number}",1,0,16,16,0,{number}', file=file)
