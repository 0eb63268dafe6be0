"""The flow of one job, and its parts for commands that need no whole job."""

from pipeline.run.execution import Execution
from pipeline.run.flow import failed, run_job
from pipeline.run.requests import judge_request, render_request
from pipeline.run.scoring import Scoring, scored, scoring_of
from pipeline.run.waves import hold_contest

__all__ = [
    "Execution",
    "Scoring",
    "failed",
    "hold_contest",
    "judge_request",
    "render_request",
    "run_job",
    "scored",
    "scoring_of",
]
