"""A cosine becomes a chance by the profile's numbers, or else by the model's own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.judging.clip import calibration
from pipeline.judging.logistic import Calibration
from pipeline.profile import ClipJudgeProfile

HUGE = f'{{"slope": 1{"0" * 400}, "offset": 1}}'


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1, 1))
def test_a_calibrated_score_lies_between_0_and_1(
    slope: float, offset: float, cosine: float
) -> None:
    assert 0 <= Calibration(slope, offset).chance(cosine) <= 1


def test_a_chance_is_the_logistic_of_the_cosine() -> None:
    even = Calibration(slope=50, offset=-12)
    assert even.chance(0.24) == pytest.approx(0.5)
    assert even.chance(0.30) == pytest.approx(0.952574, abs=1e-6)


def test_the_profile_goes_before_the_models_file(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text('{"slope": 20, "offset": -7, "auc": 0.97}')
    assert calibration(ClipJudgeProfile(model="m"), tmp_path) == Calibration(20, -7)
    profile = ClipJudgeProfile(model="m", slope=1.0, offset=2.0)
    assert calibration(profile, tmp_path) == Calibration(1, 2)


def test_without_a_calibration_file_the_profile_must_set_slope_and_offset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set slope and offset of the judge 'clip'"):
        calibration(ClipJudgeProfile(model="m"), tmp_path)
    with pytest.raises(ConfigError, match="set offset of the judge 'clip'"):
        calibration(ClipJudgeProfile(model="m", slope=1.0), tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"slope": 1}', '{"slope": [], "offset": 1}', "[" * 100_000, HUGE]
)
def test_a_calibration_file_without_its_numbers_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(ConfigError, match="must hold the numbers"):
        calibration(ClipJudgeProfile(model="m"), tmp_path)
