"""A column is one entry in one file: a copy of the code with one more has it everywhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ENTRY = """\
    warmth: Annotated[
        int,
        Field(ge=0, le=9, description="warmth of the light"),
        Settable(("row", "profile", "run"), 3, "light", elsewhere=("colour_temperature",)),
    ] = 3
"""
PROGRAM = """
import json
from pathlib import Path
from typer.testing import CliRunner
from flows.cli.main import app
from flows.inbox_files import Options
from pipeline.job import Brief
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.profile import Profile
from pipeline.run import run_job
from tests.harness.parts import Parts, scores

class Warm(Parts):
    def write(self, job, context, rejected=None):
        return Brief(text="text", prompt=f"light of warmth {job.warmth}")

def read(**said):
    return read_jobs(Path("jobs.csv"), Profile.load("shapes"), Overrides(**said), lambda _: None)

plain, own, bad = read()
(said, *_) = read(warmth=5)
outcome = run_job(own, Warm(scores(*[1] * 4)).ports())
help_text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "300"}).output
checked = CliRunner().invoke(app, ["check", "jobs.csv", "--warmth", "10"])
print(json.dumps({
    "warmths": [plain.warmth, own.warmth, said.warmth],
    "ids": len({plain.id, own.id, said.id}),
    "bad": [bad.column, bad.reason],
    "record": json.loads(outcome.model_dump_json()),
    "help": [line for line in help_text.splitlines() if "--warmth" in line],
    "refused": [checked.exit_code, checked.output],
    "inbox": Options.model_validate({"warmth": 4}).warmth,
    "form": Overrides.model_json_schema()["properties"]["warmth"],
    "profile": Profile.load("warm.toml").defaults.warmth,
}))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a copy of the code with one more entry in `Job` makes of it."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("pipeline", "workers", "flows"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=unwanted)
    job = folder / "pipeline" / "job" / "row.py"
    before, mark, after = job.read_text("utf-8").partition("    meta: dict[str, str]")
    job.write_text(f"{before}{ENTRY}{mark}{after}", "utf-8")
    (folder / "jobs.csv").write_text("keywords,Colour Temperature\nlamp,\nlamp,7\nlamp,10\n")
    (folder / "warm.toml").write_text('extends = "shapes"\n[defaults]\nwarmth = 8\n')
    paths = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_a_row_before_a_run_before_the_profile_sets_it(seen: dict[str, Any]) -> None:
    assert seen["warmths"] == [3, 7, 5]
    assert seen["ids"] == 3
    assert seen["profile"] == 8
    assert seen["bad"] == ["light", "'10' should be less than or equal to 9"]


def test_a_new_column_reaches_the_ports_and_the_record(seen: dict[str, Any]) -> None:
    assert seen["record"]["brief"]["prompt"] == "light of warmth 7"
    assert seen["record"]["job"]["warmth"] == 7
    assert seen["record"]["status"] == "accepted"


def test_a_new_column_is_in_commands_form_and_inbox_with_its_help_and_bounds(
    seen: dict[str, Any],
) -> None:
    (line,) = seen["help"]
    assert "Warmth of the light, for rows that set none." in line
    assert "0<=x<=9" in line
    assert seen["refused"][0] == 2
    assert "--warmth" in seen["refused"][1]
    assert seen["inbox"] == 4
    assert seen["form"]["description"] == "warmth of the light"
    assert seen["form"]["anyOf"][0] == {"maximum": 9, "minimum": 0, "type": "integer"}
