"""Jobs, their outcomes and job files for tests that render small images, or none."""

from pathlib import Path
from typing import Any

from pipeline.job import Brief, Context, Job, JudgeRequest, Passage, Score
from pipeline.profile import Profile
from pipeline.record import CandidateRecord, Outcome, RunSpec, Status


def make_job(number: int = 0, **fields: Any) -> Job:
    """The job of a row by its place, counted from 0; `fields` replace its values."""
    defaults = {
        "id": f"j{number:03}", "row": number + 2, "keywords": "red circle", "candidates": 1,
        "threshold": 0.5, "width": 64, "height": 64, "steps": 2, "guidance": 1.0, "seed": number,
        "passages": 0, "mode": "keywords", "contest": "best_of", "wave": 1,
    }  # fmt: skip
    return Job(**defaults | fields)


def make_outcome(job: Job, **fields: Any) -> Outcome:
    """The outcome of a job of run `demo` whose second candidate is accepted; `fields` replace its
    values.
    """
    scores = (Score(raw=0.1, calibrated=0.2), Score(raw=0.3, calibrated=0.9))
    defaults = {
        "run": "demo", "job_id": job.id, "status": Status.ACCEPTED, "job": job, "row": job.row,
        "keywords": job.keywords,
        "context": Context(passages=(Passage(id="p", text="t", source="s.md", score=1),)),
        "brief": Brief(text="A circle.", prompt="a red circle", negative="blur", sources=("p",)),
        "candidates": tuple(
            CandidateRecord(index=index, seed=job.candidate_seed(index), score=score)
            for index, score in enumerate(scores)
        ),
        "winner": 1, "models": {"renderer": "0123456789abcdef"},
        "seconds": {"write": 0.5, "render": 1.0}, "device_seconds": {"renderer": 0.25},
        "attempt": "first", "version": "0.1.0",
    }  # fmt: skip
    return Outcome.model_validate(defaults | fields)


def request_of(text: str) -> JudgeRequest:
    """The judge's request for a job whose three texts are one."""
    return JudgeRequest(text, text, text)


def make_spec(**fields: Any) -> RunSpec:
    """The spec of run `demo` of profile `shapes` with Euler's scheduler, without rows; `fields`
    replace its values.
    """
    profile = Profile.load("shapes").model_dump(mode="json")
    profile["renderer"]["scheduler"] = "EulerDiscreteScheduler"
    defaults = {
        "run": "demo", "job_file": "jobs.csv", "job_file_digest": "0" * 24, "rows": 0, "shards": 0,
        "profile": profile, "models": {"renderer": "0123456789abcdef"},
        "created_at": "2026-01-01T00:00:00+00:00", "version": "0.1.0",
    }  # fmt: skip
    return RunSpec.model_validate(defaults | fields)


def write_jobs(path: Path, rows: int, first: int = 0) -> None:
    """Write a job file of different rows, numbered from `first`: each one small candidate that
    passes its threshold.
    """
    with path.open("w", encoding="utf-8") as file:
        print("id,keywords,candidates,threshold,width,height,passages,seed", file=file)
        for number in range(first, first + rows):
            print(f'row-{number},"red circle, number {number}",1,0,16,16,0,{number}', file=file)
