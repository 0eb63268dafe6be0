"""A run's books in a folder, and the makings of records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.job import (
    Brief,
    CandidateRecord,
    Context,
    Job,
    Outcome,
    Passage,
    RunSpec,
    Score,
    Status,
)
from pipeline.records.run_folder import RunFolder
from pipeline.storage.folder import FolderStore


@pytest.fixture
def spec() -> RunSpec:
    return RunSpec(
        run="demo",
        job_file="jobs.csv",
        job_file_digest="0" * 24,
        rows=0,
        shards=0,
        profile={"renderer": {"model": "diffusion", "scheduler": "EulerDiscreteScheduler"}},
        models={"renderer": "0123456789abcdef"},
        created_at="2026-01-01T00:00:00+00:00",
        version="0.1.0",
    )


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
        return Job.model_validate(
            {
                "id": job_id,
                "row": row,
                "keywords": "red circle",
                "candidates": 2,
                "threshold": 0.5,
                "width": 64,
                "height": 64,
                "steps": 20,
                "guidance": 4.0,
                "seed": 7,
                "passages": 1,
                "mode": "generated",
                "contest": "best_of",
                "wave": 1,
            }
            | fields
        )

    return make


@pytest.fixture
def make_outcome() -> Callable[..., Outcome]:
    def make(job: Job, **fields: Any) -> Outcome:
        return Outcome.model_validate(
            {
                "run": "demo",
                "job_id": job.id,
                "status": Status.ACCEPTED,
                "job": job,
                "row": job.row,
                "keywords": job.keywords,
                "context": Context(passages=(Passage(id="p", text="t", source="s.md", score=1),)),
                "brief": Brief(text="A circle.", prompt="a red circle", negative="blur"),
                "candidates": (
                    CandidateRecord(index=0, seed=7, score=Score(raw=0.1, calibrated=0.2)),
                    CandidateRecord(index=1, seed=8, score=Score(raw=0.3, calibrated=0.9)),
                ),
                "winner": 1,
                "models": {"renderer": "0123456789abcdef"},
                "seconds": {"write": 0.5, "render": 1.0},
                "device_seconds": {"renderer": 0.25},
                "attempt": "first",
                "version": "0.1.0",
            }
            | fields
        )

    return make
