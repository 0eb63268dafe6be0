"""`pressrun calibrate race` on the shipped models."""

from pathlib import Path

import pytest

from flows.runs.calibrate import calibrate_race
from pipeline.errors import RunError
from pipeline.jobfile.reader import Overrides
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
    assert found["profile"]["cost"] == pytest.approx((4 * 0.5 + 2 * 0.2 + 0.3) / 4)
    assert found["proposal"]["cost"] < found["profile"]["cost"]
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
