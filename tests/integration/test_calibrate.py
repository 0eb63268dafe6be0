"""`pressrun calibrate race` and `calibrate stop` on the shipped models."""

from pathlib import Path

import pytest

from flows.runs.calibrate import calibrate_race, calibrate_stop
from pipeline.errors import ConfigError, RunError
from pipeline.job import Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.profile import Profile
from pipeline.settings import load_settings
from tests.harness import small_models

pytestmark = pytest.mark.slow


def test_it_measures_previews_and_proposes_a_race(tmp_path: Path, models_root: Path) -> None:
    small_models.shipped(models_root)
    (tmp_path / "jobs.csv").write_text("keywords,width\nred circle,64\nblue star,x\nteal ring,64\n")
    settings = load_settings(store=str(tmp_path / "out"), models=models_root)
    wanted = Overrides(candidates=4, retrieval=False)
    found = calibrate_race(tmp_path / "jobs.csv", wanted, 9, 1.0, settings)
    assert (found["jobs"], found["candidates"]) == (2, 4)
    assert set(found["spearman"]) == {f"0.{tenth}" for tenth in range(1, 10)}
    assert found["spearman"]["0.9"] > found["spearman"]["0.1"]
    price = found["preview_price"]
    assert 0 < price < 1
    shown = 4 * (0.5 + price) + 2 * (0.2 + price) + 0.3 + price
    # of two left at the second rung one goes on, without a preview at the third
    assert found["profile"]["cost"] == pytest.approx(shown / (4 * (1 + price)), abs=2e-3)
    for each in (found["profile"], found["proposal"]):
        assert each["loses"] == bool(each["rungs"] and each["regret"] >= each["fewer_regret"])
    assert not found["proposal"]["loses"]
    assert ("refused" in found) == found["profile"]["loses"]
    assert found["fewer"] == {"candidates": 1, "cost": 0.25, "regret": found["fewer"]["regret"]}
    assert not [*(tmp_path / "out").rglob("*")], "it left something in the store"


def test_a_file_without_jobs_is_told(tmp_path: Path, models_root: Path) -> None:
    (tmp_path / "jobs.csv").write_text("keywords,width\nblue star,x\n")
    settings = load_settings(store=str(tmp_path / "out"), models=models_root)
    with pytest.raises(RunError, match="holds no jobs"):
        calibrate_race(tmp_path / "jobs.csv", Overrides(), 9, 0.02, settings)


def test_one_candidate_has_no_rivals(tmp_path: Path, models_root: Path) -> None:
    (tmp_path / "jobs.csv").write_text("keywords\nblue star\n")
    settings = load_settings(store=str(tmp_path / "out"), models=models_root)
    with pytest.raises(RunError, match="at least two candidates"):
        calibrate_race(tmp_path / "jobs.csv", Overrides(candidates=1), 9, 0.02, settings)


def test_a_prior_is_measured_written_and_used(tmp_path: Path, models_root: Path) -> None:
    small_models.shipped(models_root)
    jobs, base, out = (tmp_path / name for name in ("jobs.csv", "base.toml", "own.toml"))
    base.write_text('extends = "shapes-draft"\n[defaults]\ncontest = "stop"\nsteps = 4\n')
    colours = ("red", "blue", "teal", "pink", "green", "grey", "black", "white")
    jobs.write_text("keywords,contest\n" + "".join(f"{each} circle,stop\n" for each in colours))
    settings = load_settings(store=str(tmp_path / "out"), models=models_root, profile=str(base))
    with pytest.raises(ConfigError, match="calibrate stop"):
        next(read_jobs(jobs, settings.chosen_profile, Overrides()))
    wanted = Overrides(candidates=3, retrieval=False)
    found = calibrate_stop(jobs, wanted, 9, settings, out)
    assert (found["jobs"], found["candidates"], found["profile"]) == (8, 3, str(out))
    never = found["forecast"][0]
    assert never["stop_below"] == 0
    assert all(each["accepted"] <= never["accepted"] for each in found["forecast"])
    profile = Profile.load(str(out))
    assert profile.defaults.prior is not None
    assert profile.defaults.prior.model_dump() == found["prior"]
    first = next(read_jobs(jobs, profile, Overrides()))
    assert isinstance(first, Job)
    assert (first.contest, first.steps) == ("stop", 4)
    with pytest.raises(RunError, match="exists"):
        calibrate_stop(jobs, wanted, 9, settings, out)


def test_a_prior_of_few_jobs_is_refused(tmp_path: Path, models_root: Path) -> None:
    (tmp_path / "jobs.csv").write_text("keywords\nblue star\n")
    settings = load_settings(store=str(tmp_path / "out"), models=models_root)
    with pytest.raises(RunError, match="8 jobs of at least two candidates"):
        calibrate_stop(tmp_path / "jobs.csv", Overrides(), 9, settings)
