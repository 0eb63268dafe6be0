"""Jobs for tests in which nothing is rendered."""

from pipeline.job import Job


def job(number: int, candidates: int = 1) -> Job:
    """The job of a row by its place, counted from 0."""
    return Job(
        id=f"j{number:03}", row=number + 2, keywords="red circle", candidates=candidates,
        threshold=0.5, width=64, height=64, steps=2, guidance=1.0, seed=number, passages=0,
        mode="keywords", contest="best_of", wave=1,
    )  # fmt: skip
