"""Weights of words, as far as a row alone tells that they are too large."""

from pathlib import Path

import pytest

from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.profile import Profile, TemplateWriterProfile

SHAPES = Profile.load("shapes")
WEIGHTED = SHAPES.model_copy(
    update={"renderer": SHAPES.renderer.model_copy(update={"weighted": True})}
)
TEMPLATE = WEIGHTED.model_copy(update={"writer": TemplateWriterProfile()})


@pytest.mark.parametrize(
    ("row", "profile", "column"),
    [
        ("a (circle:1.5),(blue:2)", TEMPLATE, ""),
        ("a (circle:11),", TEMPLATE, "keywords"),
        ("a circle,((blue:4):4)", TEMPLATE, "negative"),
        # a language model writes its own prompt, and the negative one stays the row's
        ("a (circle:11),", WEIGHTED, ""),
        ("a circle,(blue:11)", WEIGHTED, "negative"),
        ("a (circle:11),(blue:11)", SHAPES, ""),
    ],
)
def test_a_weight_that_is_too_large_is_an_invalid_row(
    row: str, profile: Profile, column: str, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(f"keywords,negative\n{row}\n", encoding="utf-8")
    (read,) = read_jobs(path, profile, Overrides(), lambda _: None)
    if column:
        assert isinstance(read, BadRow)
        assert (read.column, read.reason) == (column, "a weight of words is beyond 10")
    else:
        assert isinstance(read, Job)
