"""A run's folder, and the makings of records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.job import Job
from pipeline.record import Outcome, RunSpec
from pipeline.records.run_folder import RunFolder
from pipeline.storage.folder import FolderStore
from tests.harness import jobs


@pytest.fixture
def spec() -> RunSpec:
    return jobs.make_spec()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.fixture
def run_folder(store: FolderStore, spec: RunSpec) -> RunFolder:
    run_folder = RunFolder(store, "demo")
    run_folder.write_spec(spec)
    return run_folder


@pytest.fixture
def make_job() -> Callable[..., Job]:
    def make(job_id: str = "job", row: int = 2, **fields: Any) -> Job:
        defaults = {
            "id": job_id, "row": row, "candidates": 2, "steps": 20, "guidance": 4.0, "seed": 7,
            "passages": 1, "mode": "generated",
        }  # fmt: skip
        return jobs.make_job(**defaults | fields)

    return make


@pytest.fixture
def make_outcome() -> Callable[..., Outcome]:
    return jobs.make_outcome
