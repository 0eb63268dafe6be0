"""Options that set a job's fields, on the commands and in the Prefect form."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from pipeline.errors import ConfigError, JobFileError
from pipeline.jobfile.builder import Overrides
from pipeline.jobfile.reader import read_jobs
from pipeline.options import settable
from pipeline.profile import Profile


@pytest.mark.parametrize(
    ("command", "without"), [("run", set()), ("check", set()), ("calibrate race", {"threshold"})]
)
def test_a_command_has_an_option_for_all_that_a_run_may_set(
    command: str, without: set[str]
) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "300"}).output
    for name, (field, _) in settable("run").items():
        about = (field.description or "?")[1:]
        assert (f"--{name}" in shown) == (about in shown) == (name not in without)
    assert "--no-retrieval" in shown


def test_an_address_is_no_collection(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("keywords\na\n")
    result = CliRunner().invoke(app, ["check", str(jobs), "--collection", "s3://a/b"])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.detail.startswith("--collection: Input is no plain name")


def test_the_form_shows_help_and_bounds() -> None:
    fields: dict[str, Any] = Overrides.model_json_schema()["properties"]
    assert set(fields) == {*settable("run"), "retrieval"}
    for name, (field, _) in settable("run").items():
        assert fields[name]["description"] == field.description
    assert fields["candidates"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 64}


def test_a_mapping_is_remembered_for_the_run(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.csv"
    jobs.write_bytes("Product name;Größe\nred circle;klein\n".encode("cp1252"))
    refused = CliRunner().invoke(app, ["check", str(jobs), "--encoding", "cp1252"])
    assert isinstance(refused.exception, JobFileError)
    assert not Path(f"{jobs}.columns.toml").exists()
    said = ["--encoding", "cp1252", "--map", "Product name=keywords", "--json"]
    shown = CliRunner().invoke(app, ["check", str(jobs), *said])
    assert json.loads(shown.output.splitlines()[-1])["remembered_in"] == f"{jobs}.columns.toml"
    (job,) = read_jobs(jobs, Profile.load("shapes"), Overrides(), lambda _: None)
    assert (job.keywords, job.meta) == ("red circle", {"größe": "klein"})
