"""The makings of jobs and contexts for the writers."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.job import Context, Job, Passage


@pytest.fixture
def make_job() -> Callable[..., Job]:
    """A job with the given fields, and defaults for the others."""

    def make(**fields: Any) -> Job:
        defaults = {
            "id": "job",
            "row": 2,
            "keywords": "Viora logo",
            "candidates": 1,
            "threshold": 0.5,
            "width": 64,
            "height": 64,
            "steps": 1,
            "guidance": 1.0,
            "seed": 7,
            "passages": 3,
            "mode": "generated",
            "contest": "best_of",
            "wave": 1,
        }
        return Job.model_validate(defaults | fields)

    return make


@pytest.fixture
def make_context() -> Callable[..., Context]:
    """A context of passages with these texts."""

    def make(*texts: str) -> Context:
        passages = (Passage(id=str(i), text=text, score=1.0) for i, text in enumerate(texts))
        return Context(passages=tuple(passages))

    return make
