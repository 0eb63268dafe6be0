import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Notice, Overrides, read_jobs
from pipeline.jobfile.reading import SUFFIX
from pipeline.profile import Profile

Rows = list[Job | BadRow]
Read = Callable[..., Rows]


@pytest.fixture(scope="session")
def profile() -> Profile:
    return Profile.load("shapes")


@pytest.fixture
def told() -> list[Notice]:
    """What `read` was warned of."""
    return []


@pytest.fixture
def read(tmp_path: Path, profile: Profile, told: list[Notice]) -> Read:
    """Reads the given content as a job file with the given suffix."""

    def read(content: str | bytes, suffix: str = ".csv", **overrides: Any) -> Rows:
        path = tmp_path / f"jobs{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(read_jobs(path, profile, Overrides(**overrides), told.append))

    return read


@pytest.fixture
def beside(tmp_path: Path) -> Callable[..., None]:
    """Writes how to read the job file that `read` reads."""

    def beside(said: str, suffix: str = ".csv") -> None:
        (tmp_path / f"jobs{suffix}{SUFFIX}").write_text(said, encoding="utf-8")

    return beside


@pytest.fixture
def read_one(read: Read) -> Callable[..., Job | BadRow]:
    """Reads the given values as the only row of a JSONL file."""

    def read_one(values: dict[str, Any], **overrides: Any) -> Job | BadRow:
        (row,) = read(json.dumps(values), ".jsonl", **overrides)
        return row

    return read_one
