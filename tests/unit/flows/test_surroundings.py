"""What the environment says and lacks."""

from contextvars import copy_context

import pytest

from flows.context import SETTINGS, flow_settings
from flows.stack.environment import environment, unknown_settings
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


def test_a_child_gets_our_settings_in_place_of_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRESSRUN_STORE", "s3://another/one")
    monkeypatch.setenv("PRESSRUN_WEBHOOK_SECRET", "hidden")
    monkeypatch.setenv("OTHERS", "kept")
    passed = environment(load_settings(store="out", redis_url="unix:///a"))
    assert "PRESSRUN_STORE" not in passed, "it is the default, which no variable may change"
    assert (passed["PRESSRUN_REDIS_URL"], passed["OTHERS"]) == ("unix:///a", "kept")
    assert passed["PRESSRUN_WEBHOOK_SECRET"] == "hidden"


def test_a_flow_takes_the_settings_of_its_caller_and_a_profile_over_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRESSRUN_STORE", "/of/the/environment")
    given = load_settings(store="/of/the/caller", concurrency=3)
    assert given.chosen_profile.name == "shapes"
    context = copy_context()
    context.run(SETTINGS.set, given)
    found = context.run(flow_settings, profile="shapes-draft")
    assert (found.store, found.concurrency) == ("/of/the/caller", 3)
    assert found.chosen_profile.name == "shapes-draft"
    assert flow_settings(profile=None).store == "/of/the/environment"
