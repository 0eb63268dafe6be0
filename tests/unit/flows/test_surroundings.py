"""What the environment says and lacks."""

import pytest

from flows.stack.environment import unknown_settings
from pipeline.settings import load_settings


def test_a_variable_that_no_setting_has_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_IMAGEFORMAT", "jpeg")
    monkeypatch.setenv("PRESSRUN_STORE", "out")
    (warning,) = [each for each in unknown_settings() if "IMAGEFORMAT" in each]
    assert warning.endswith("did you mean PRESSRUN_IMAGE_FORMAT?")
    assert not any("STORE" in each for each in unknown_settings())


def test_values_are_taken_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_CONCURRENCY", "")
    monkeypatch.setenv("PRESSRUN_LOG_LEVEL", "INFO")
    monkeypatch.setenv("PRESSRUN_IMAGE_FORMAT", "jpg")
    settings = load_settings()
    assert (settings.concurrency, settings.log_level, settings.image_format) == (16, "info", "jpeg")
