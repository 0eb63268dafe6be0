"""Runs of which nothing is left, and resumed ones, before anything is started."""

from pathlib import Path

import pytest

from flows import generate
from flows.cli.batch import Limits, resume_run, run_batch
from flows.cli.output import exit_code
from flows.runs.open import open_run
from flows.runs.publish import publish
from pipeline.assemble.stores import open_run_folder
from pipeline.errors import ConfigError, ModelError, RunError
from pipeline.job import Job
from pipeline.jobfile.reader import Overrides
from pipeline.record import Outcome, Status
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(store=str(tmp_path / "out"), home=tmp_path / "home")


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    path = tmp_path / "r.csv"
    path.write_text("keywords,steps\nred circle,2\nblue star,x\n", encoding="utf-8")
    return path


@pytest.fixture
def run_folder(jobs: Path, settings: Settings) -> RunFolder:
    """Those of a run whose every row has its outcome."""
    run_folder = open_run_folder(settings, "r")
    spec = open_run(jobs, Overrides(), settings, run_folder)
    for row in run_folder.shards.read(spec.fingerprint, 1):
        if isinstance(row, Job):
            blocked = Outcome(
                run="r", job_id=row.id, status=Status.BLOCKED, job=row, row=row.row,
                keywords=row.keywords,
            )  # fmt: skip
            run_folder.records.commit(blocked, None)
    return run_folder


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("again", ["run", "resume"])
def test_where_nothing_is_left_that_is_said_and_nothing_is_started(
    jobs: Path,
    settings: Settings,
    run_folder: RunFolder,
    capsys: pytest.CaptureFixture[str],
    published: bool,
    again: str,
) -> None:
    if published:
        publish(run_folder, run_folder.spec(), 1.0)
    if again == "run":
        summary = run_batch(jobs, None, Overrides(), (Status.FAILED,), settings, {}, pytest.fail)
    else:
        summary = resume_run("r", (Status.FAILED,), settings, {})
    assert (summary["rows"], summary["invalid"], summary["blocked"]) == (2, 1, 1)
    said = "Nothing to do: 2 rows have their outcome; --retry blocked makes them again.\n"
    assert capsys.readouterr().err == said
    assert Path(summary["gallery"]).is_file()
    assert {each.name for each in settings.home.glob("*")} <= {"digests.json"}, "the models' cache"


def test_a_run_that_stopped_while_rows_were_done_again_is_done_without_these(
    settings: Settings, run_folder: RunFolder
) -> None:
    publish(run_folder, run_folder.spec(), 1.0, stopped="It was 1 device seconds.")
    summary = resume_run("r", (Status.FAILED,), settings, {})
    assert (summary["blocked"], exit_code(summary, ())) == (1, 0)
    assert not {"stopped", "left"} & summary.keys()


def test_what_a_quota_counts_is_not_done_again(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    retry, limits = (Status.FAILED, Status.ACCEPTED), Limits(quota=2)
    with pytest.raises(RunError, match=r"--quota counts .* accepted"):
        run_batch(jobs, None, Overrides(), retry, settings, limits, pytest.fail)
    with pytest.raises(RunError, match=r"--quota counts .* accepted"):
        resume_run("r", retry, settings, limits)


def test_a_flow_refuses_to_do_again_what_its_quota_counts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "flow_settings", lambda **_: settings)
    monkeypatch.setattr(generate, "services", lambda *_: pytest.fail("something is started"))
    with pytest.raises(RunError, match=r"--quota counts .* accepted"):
        generate.generate.fn("r", retry=(Status.ACCEPTED,), quota=2)


def test_what_a_resumed_run_needs_is_looked_for_before_anything_is_started(
    settings: Settings, run_folder: RunFolder, tmp_path: Path
) -> None:
    retry = (Status.BLOCKED,)
    with pytest.raises(ConfigError, match=r"PRESSRUN_DEVICE .*'mps' is Apple's"):
        resume_run("r", retry, settings.model_copy(update={"device": "mps"}), {})
    with pytest.raises(ModelError) as missing:
        resume_run("r", retry, settings.model_copy(update={"models": tmp_path / "empty"}), {})
    roles = [line.partition(":")[0] for line in missing.value.detail.splitlines()]
    needed = {"judge", "writer", "renderer", "image_adapter", "control", "image_encoder"}
    assert set(roles[:-1]) == needed
    assert roles[-1] == "PRESSRUN_MODELS"
    assert {each.name for each in settings.home.glob("*")} <= {"digests.json"}, "the models' cache"
