"""docs/record.md describes every field of what is stored."""

import re
from pathlib import Path

import pytest

from pipeline.job import Brief, Check, Context, FrozenModel, Job, Passage, Score, ScorePart
from pipeline.record import (
    RECORD_SCHEMA,
    CandidateRecord,
    ImageRecord,
    Outcome,
    Refinement,
    RunSpec,
    Status,
)
from pipeline.records import manifest, shards

DOCUMENT = (Path(__file__).parents[3] / "docs" / "record.md").read_text(encoding="utf-8")
HEADINGS: dict[type[FrozenModel], str] = {
    Outcome: "## Record",
    Job: "### `job`",
    Context: "### `context`",
    Passage: "### `context`",
    Brief: "### `brief`",
    Check: "### `brief`",
    Refinement: "### `refinements`",
    CandidateRecord: "### `candidates`",
    Score: "### `candidates`",
    ScorePart: "### `candidates`",
    ImageRecord: "### `image`",
    RunSpec: "## Run spec",
}


def named_under(heading: str) -> set[str]:
    """The names in backquotes between a heading and the next one."""
    text = DOCUMENT.split(f"\n{heading}\n")[1]
    return set(re.findall(r"`([a-z_0-9]+)`", re.split(r"\n#", text)[0]))


@pytest.mark.parametrize("noun", HEADINGS, ids=lambda noun: noun.__name__)
def test_every_field_is_described(noun: type[FrozenModel]) -> None:
    assert set(noun.model_fields) <= named_under(HEADINGS[noun])


def test_every_verdict_is_described() -> None:
    assert {status.value for status in Status} <= named_under("### Statuses")


def test_every_column_is_described() -> None:
    assert set(manifest.SCHEMA.names) <= named_under("## Manifest")
    assert set(shards.SCHEMA.names) <= named_under("## Shards")


def test_the_schemas_number_is_described() -> None:
    assert f"`record_schema` is **{RECORD_SCHEMA}**" in DOCUMENT
