"""Reviews of a run's images, from a CSV or JSONL file: which are right."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import RunError
from pipeline.job import JOB_ID
from pipeline.tabular.rows import Lines, RowTooLong, csv_header, csv_problem, csv_rows, decoded

ROW_LIMIT = 64 * 1024
"""Bytes of a row."""
COLUMNS = frozenset({"job", "image", "run", "right"})
WORDS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}

_IMAGE = re.compile(
    r"(?:(?:.*/)?runs/(?P<run>[^/]+)/images/|.*/)?"
    r"(?P<job>[0-9A-Za-z_]{1,64})-(?P<sha256>[0-9a-f]{12})\.(?:png|webp|jpg)"
)


@dataclass(frozen=True)
class Review:
    """The label of a job's image; `sha256` has the first digits of the image's, empty where the
    review names the job alone.
    """

    right: bool
    sha256: str = ""


@dataclass(frozen=True)
class Reviews:
    """The reviews of one run's images by job, and how many others the file has."""

    by_job: Mapping[str, Review]
    elsewhere: int


def read_reviews(path: Path, run: str) -> Reviews:
    """The reviews of a run in a file whose columns are `right` (yes or no), and `job` (an id, or
    RUN/JOB) or `image` (a path in the run's folder), with `run` where it is of several.

    Raises RunError, with the line, for a file or a row that cannot be read, and for a job that is
    said to be both right and wrong.
    """
    found, elsewhere = dict[str, Review](), 0
    try:
        with path.open("rb") as file:
            lines = Lines(file, ROW_LIMIT, 100)
            rows = _jsonl(lines) if path.suffix in (".jsonl", ".ndjson") else _csv(lines)
            for number, row in rows:
                try:
                    of_run, job, review = _review(row)
                    if of_run not in ("", run):
                        elsewhere += 1
                        continue
                    if found.setdefault(job, review).right != review.right:
                        # told with its line like what _review refuses
                        raise ValueError(f"job {job} is reviewed as right and as wrong")  # noqa: TRY301
                except ValueError as error:
                    raise RunError(f"{path}, line {number}: {error}.") from error
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}.") from error
    return Reviews(found, elsewhere)


def _review(row: Mapping[str, Any]) -> tuple[str, str, Review]:
    """The run, where it is named, the job, and its review."""
    given = {name: str(row.get(name, "")).strip() for name in COLUMNS}
    right = WORDS.get(given["right"].lower())
    if right is None:
        raise ValueError(f"`right` is yes or no, and not {given['right']!r}")
    of_run, _, job = given["job"].rpartition("/")
    sha256 = ""
    if given["image"]:
        if not (named := _IMAGE.fullmatch(given["image"])):
            raise ValueError(f"{given['image']!r} is no image of a run's folder")
        if job not in ("", named["job"]):
            raise ValueError(f"the image is of job {named['job']}, and not of {job}")
        of_run, job, sha256 = of_run or named["run"] or "", named["job"], named["sha256"]
    if not JOB_ID.fullmatch(job):
        raise ValueError(f"`job` is a job's id, and not {job!r}: give it, or the `image`")
    return given["run"] or of_run, job, Review(right, sha256)


def _csv(lines: Lines) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        delimiter, names = csv_header(lines, ",;\t", COLUMNS.__contains__)
    except (UnicodeDecodeError, csv.Error, RowTooLong) as error:
        raise RunError(f"The reviews have no header that can be read: {error}.") from error
    if "right" not in names:
        raise RunError(
            f"The reviews have no column `right`: there are {', '.join(names) or 'none'}."
        )
    for number, fields in csv_rows(lines, delimiter):
        if isinstance(fields, Exception):
            reason = csv_problem(fields) if isinstance(fields, csv.Error) else str(fields)
            raise RunError(f"The reviews, line {number}: {reason}.")
        yield number, dict(zip(names, fields, strict=False))


def _jsonl(lines: Lines) -> Iterator[tuple[int, dict[str, Any]]]:
    while True:
        lines.begin_row()
        try:
            line = next(lines, b"")
            if not line:
                return
            row = json.loads(decoded(line)) if line.strip() else {}
        except (ValueError, RecursionError, RowTooLong) as error:
            raise RunError(f"The reviews, line {lines.first}: {error}.") from error
        if not isinstance(row, dict):
            raise RunError(f"The reviews, line {lines.first}: it is no object.")
        if row:
            yield lines.first, row
